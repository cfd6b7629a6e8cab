"""An empty safetensors tensor whose other side does not fit into 63 bits."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from attacks.trial import main, refer_to
from plora_cl.checkpoint.format.manifest import ObjectRef


def attack(folder: Path) -> Path:
    tensor = {"dtype": "F32", "shape": [0, (1 << 64) - 1], "data_offsets": [0, 0]}
    header = json.dumps({"weight": tensor}).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(0)
    ref = ObjectRef.of(data)
    (folder / "objects" / ref.file_name).write_bytes(data)
    return refer_to(folder, ref)


if __name__ == "__main__":
    main(attack)
