"""A reference to an object that climbs out of the folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from attacks.trial import honest, main, manifest, newest
from plora_cl.checkpoint.format.manifest import ObjectRef


def attack(folder: Path) -> Path:
    """Swap the digest in pickle and manifest for a path as long, and set every digest anew."""
    honest_name, climbing = "ab" * 32, "../" * 18 + "etc/passwd"
    refs = {"base": ObjectRef(honest_name, 5)}
    old = manifest(refs).to_json()
    assert len(climbing) == 64
    assert json.loads(old)["objects"]["base"]["sha256"] == honest_name
    data = honest(refs).replace(honest_name.encode(), climbing.encode())
    changed = old.replace(honest_name.encode(), climbing.encode())
    before, after = (hashlib.sha256(text).hexdigest().encode() for text in (old, changed))
    body = data.replace(before, after)[:-64]
    path = newest(folder)
    path.write_bytes(body + hashlib.sha256(body).hexdigest().encode())
    return path


if __name__ == "__main__":
    main(attack)
