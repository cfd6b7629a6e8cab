"""A file of one tebibyte that takes no room on the disk, and ends in nothing."""

from __future__ import annotations

import os
from pathlib import Path

from attacks.trial import main, newest


def attack(folder: Path) -> Path:
    newest(folder).touch()
    os.truncate(newest(folder), 1 << 40)
    return newest(folder)


if __name__ == "__main__":
    main(attack)
