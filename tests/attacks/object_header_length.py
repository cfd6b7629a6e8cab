"""A safetensors header of 2**62 bytes."""

from __future__ import annotations

import struct
from pathlib import Path

from attacks.trial import main, refer_to
from plora_cl.checkpoint.format.manifest import ObjectRef


def attack(folder: Path) -> Path:
    data = struct.pack("<Q", 1 << 62) + b"{}"
    ref = ObjectRef.of(data)
    (folder / "objects" / ref.file_name).write_bytes(data)
    return refer_to(folder, ref)


if __name__ == "__main__":
    main(attack)
