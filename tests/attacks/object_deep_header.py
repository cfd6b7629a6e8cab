"""A safetensors header nested 100 000 deep."""

from __future__ import annotations

import struct
from pathlib import Path

from attacks.trial import main, refer_to
from plora_cl.checkpoint.format.manifest import ObjectRef


def attack(folder: Path) -> Path:
    data = struct.pack("<Q", 100_000) + b'{"a":' + b"[" * 99_995
    ref = ObjectRef.of(data)
    (folder / "objects" / ref.file_name).write_bytes(data)
    return refer_to(folder, ref)


if __name__ == "__main__":
    main(attack)
