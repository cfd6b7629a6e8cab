"""Two megabytes of pickle with as many lists as pass, the rest of them a text."""

from __future__ import annotations

import struct
from pathlib import Path

from attacks.trial import archive, main, write_sealed


def attack(folder: Path) -> Path:
    lists = 340_000
    text = b"a" * ((2 << 20) - lists)
    pickled = b"\x80\x02](" + b"]" * lists + b"X" + struct.pack("<I", len(text)) + text + b"e."
    return write_sealed(folder, archive(pickled))


if __name__ == "__main__":
    main(attack)
