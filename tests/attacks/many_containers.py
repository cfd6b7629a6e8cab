"""Four megabytes of empty dicts: one byte each in the pickle, two hundred in memory."""

from __future__ import annotations

from pathlib import Path

from attacks.trial import archive, main, write_sealed


def attack(folder: Path) -> Path:
    return write_sealed(folder, archive(b"\x80\x02](" + b"}" * (4 << 20) + b"e."))


if __name__ == "__main__":
    main(attack)
