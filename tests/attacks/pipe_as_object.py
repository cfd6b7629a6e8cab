"""A named pipe in ``objects/``: opening it would wait for ever."""

from __future__ import annotations

import os
from pathlib import Path

from attacks.trial import main, refer_to
from plora_cl.checkpoint.format.manifest import ObjectRef


def attack(folder: Path) -> Path:
    ref = ObjectRef.of(b"")
    os.mkfifo(folder / "objects" / ref.file_name)
    return refer_to(folder, ref)


if __name__ == "__main__":
    main(attack)
