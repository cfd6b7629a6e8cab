"""A tensor of 2**40 elements over a storage of four."""

from __future__ import annotations

from pathlib import Path

from attacks.trial import archive, main, tensor_pickle, write_sealed


def attack(folder: Path) -> Path:
    pickled = tensor_pickle(elements=4, size=1 << 40)
    return write_sealed(folder, archive(pickled, ("data/0", bytes(16))))


if __name__ == "__main__":
    main(attack)
