"""A symbolic link in ``objects/``, to a file with the right bytes."""

from __future__ import annotations

from pathlib import Path

import torch

from attacks.trial import main, refer_to
from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.tensor_object import encode_object


def attack(folder: Path) -> Path:
    elsewhere = folder.parent / "secret"
    content = encode_object({"weight": torch.zeros(1)})
    elsewhere.write_bytes(content)
    ref = ObjectRef.of(content)
    (folder / "objects" / ref.file_name).symlink_to(elsewhere)
    return refer_to(folder, ref)


if __name__ == "__main__":
    main(attack)
