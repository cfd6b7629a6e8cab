"""A seal that fits every byte of the file and shows a manifest that is not the record."""

from __future__ import annotations

import hashlib
from pathlib import Path

from attacks.trial import archive, main, manifest, newest
from checkpoint.samples import seal


def attack(folder: Path) -> Path:
    shown = manifest().to_json().replace(b'"seed": 42', b'"seed": 43')
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
