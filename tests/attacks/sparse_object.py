"""An object of one tebibyte, as the manifest says, that takes no room on the disk."""

from __future__ import annotations

import os
from pathlib import Path

from attacks.trial import main, refer_to
from plora_cl.checkpoint.format.manifest import ObjectRef


def attack(folder: Path) -> Path:
    ref = ObjectRef("ab" * 32, 1 << 40)
    path = folder / "objects" / ref.file_name
    path.touch()
    os.truncate(path, ref.bytes)
    return refer_to(folder, ref)


if __name__ == "__main__":
    main(attack)
