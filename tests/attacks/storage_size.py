"""A tensor that claims a storage of four tebibytes and has sixteen bytes."""

from __future__ import annotations

from pathlib import Path

from attacks.trial import archive, main, tensor_pickle, write_sealed


def attack(folder: Path) -> Path:
    pickled = tensor_pickle(elements=1 << 40, size=4)
    return write_sealed(folder, archive(pickled, ("data/0", bytes(16))))


if __name__ == "__main__":
    main(attack)
