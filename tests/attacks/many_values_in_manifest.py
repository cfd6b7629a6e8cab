"""A manifest of sixteen megabytes, as long as one may be, that consists of empty lists."""

from __future__ import annotations

import hashlib
from pathlib import Path

from attacks.trial import archive, main, manifest, newest
from checkpoint.samples import seal


def attack(folder: Path) -> Path:
    plain = manifest().to_json()
    shown = plain.replace(b'"settings": {', b'"settings": {"a": [' + b"[]," * 5_590_000 + b"0]", 1)
    data = seal(archive(b"\x80\x02}.", ("shown", shown)), manifest())
    digest = hashlib.sha256(shown).hexdigest()
    place = f"{data.index(shown):020d} {len(shown):010d}"
    head = f"plora-cl seal 1 manifest {place} {digest} sha256 ".encode()
    body = data[: -len(head) - 64] + head
    path = newest(folder)
    path.write_bytes(body + hashlib.sha256(body).hexdigest().encode())
    return path


if __name__ == "__main__":
    main(attack)
