"""A safetensors header that names half a million empty tensors."""

from __future__ import annotations

import struct
from pathlib import Path

from attacks.trial import main, refer_to
from plora_cl.checkpoint.format.manifest import ObjectRef


def attack(folder: Path) -> Path:
    tensor = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(f'"{n}":{tensor}' for n in range(500_000)) + "}").encode()
    data = struct.pack("<Q", len(header)) + header
    ref = ObjectRef.of(data)
    (folder / "objects" / ref.file_name).write_bytes(data)
    return refer_to(folder, ref)


if __name__ == "__main__":
    main(attack)
