"""Lists nested 100 000 deep."""

from __future__ import annotations

from pathlib import Path

from attacks.trial import archive, main, write_sealed


def attack(folder: Path) -> Path:
    depth = 100_000
    return write_sealed(folder, archive(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."))


if __name__ == "__main__":
    main(attack)
