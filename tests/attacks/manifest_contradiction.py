"""An intact manifest that tells of another cursor than the content has."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import torch

from attacks.trial import honest, main, manifest, newest
from checkpoint.samples import seal


def attack(folder: Path) -> Path:
    buffer = io.BytesIO()
    torch.save(torch.load(io.BytesIO(honest()), weights_only=True), buffer)
    other = replace(manifest(), cursor={**manifest().cursor, "step": 5})
    path = newest(folder)
    path.write_bytes(seal(buffer.getvalue(), other))
    return path


if __name__ == "__main__":
    main(attack)
