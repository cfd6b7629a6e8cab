"""A symbolic link where a checkpoint should be, to an intact one."""

from __future__ import annotations

from pathlib import Path

from attacks.trial import honest, main, newest


def attack(folder: Path) -> Path:
    elsewhere = folder.parent / "elsewhere.pt"
    elsewhere.write_bytes(honest())
    newest(folder).symlink_to(elsewhere)
    return newest(folder)


if __name__ == "__main__":
    main(attack)
