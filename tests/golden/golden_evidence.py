"""What a run left behind, value by value, without what differs between two runs of the same code.

Written from docs/checkpoint-format.md alone: nothing of the package is imported here.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NORMALISED = {
    "checkpoints/*.pt/state/costs/seconds/*": "wall-clock time",
    "checkpoints/*.pt/state/costs/peak_memory_bytes": "depends on the allocator, and on kills",
    "checkpoints/*.pt/state_digest": "covers the two above",
    "checkpoints/*.pt/manifest/state_digest": "the same digest",
    "results/computational_costs.json/total_seconds": "wall-clock time",
    "results/computational_costs.json/seconds/*": "wall-clock time",
    "results/computational_costs.json/peak_memory_bytes": "as in the checkpoints",
    "results/final_results.json/wall_clock_seconds": "wall-clock time",
}
"""Values that are replaced by a mark, and why. Where the bytes of a checkpoint are compared, the
same values are replaced in its pickle and its manifest, and both digests of its seal are left out;
the sums of its zip records, too."""

KINDS = (
    "weights",
    "optimizer",
    "Fisher information",
    "scores",
    "run log",
    "other state",
    "checkpoint bytes",
    "file list",
)

ORDERED = "checkpoint bytes"
"""Not the same with kills and without, in any revision: ``costs/seconds`` has activities in the
order in which they came first, and a run that is killed in mid-phase has saved there."""

Evidence = dict[str, dict[str, str]]
"""Kind, name of a value, the value."""

_MARK = "<normalised>"
_KIND_OF = (
    ("checkpoints/*/state/model/*", "weights"),
    ("checkpoints/*/objects/model/*", "weights"),
    ("checkpoints/*/state/early_stopping/weights/*", "weights"),
    ("checkpoints/*/state/optimizer*", "optimizer"),
    ("checkpoints/*/state/scheduler*", "optimizer"),
    ("checkpoints/*/state/scaler*", "optimizer"),
    ("checkpoints/*/state/gradients*", "optimizer"),
    ("checkpoints/*/state/methods/ewc*", "Fisher information"),
    ("checkpoints/*/objects/memory/ewc/*", "Fisher information"),
    ("checkpoints/*/state/scores/*", "scores"),
    ("checkpoints/*/state/run_log/*", "run log"),
    ("checkpoints/*", "other state"),
    ("results/run_log.jsonl/*", "run log"),
    ("results/*", "scores"),
)
"""The first pattern that fits names the kind."""


def evidence_of(experiment: Path) -> Evidence:
    """Return all values in all files below ``experiment``."""
    import torch  # late: `Runs` sets what it reads when it is imported

    found: Evidence = {kind: {} for kind in KINDS}
    for path in sorted(path for path in experiment.rglob("*") if path.is_file()):
        name = path.relative_to(experiment).as_posix()
        data = path.read_bytes()
        found["file list"][name] = "there"
        if name.startswith("checkpoints/objects/"):
            found["checkpoint bytes"][name] = _sha256(data)
        elif name.endswith(".pt"):
            content = dict(_leaves(torch.load(path, weights_only=True), name))
            found["checkpoint bytes"] |= _bytes_of(data, name, _varying(content))
            _sort_in(found, content)
        elif name.endswith(".json"):
            _sort_in(found, dict(_leaves(json.loads(data), name)))
        elif name.endswith(".jsonl"):
            lines = data.decode().splitlines(keepends=True)
            _sort_in(found, {f"{name}/{k}": line for k, line in enumerate(lines, 1)})
        else:
            found["file list"][name] = _sha256(data)
    return found


def _sort_in(found: Evidence, values: dict[str, str]) -> None:
    for name, value in values.items():
        kind = next((kind for pattern, kind in _KIND_OF if _fits(name, pattern)), "other state")
        found[kind][name] = _MARK if _is_normalised(name) else value


def _is_normalised(name: str) -> bool:
    return any(_fits(name, pattern) for pattern in NORMALISED)


def _fits(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each value that holds no others."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{name}/{key}")
    elif isinstance(value, list) and value:
        for key, item in enumerate(value):
            yield from _leaves(item, f"{name}/{key}")
    elif hasattr(value, "numpy"):  # a tensor
        yield name, f"{value.dtype} {list(value.shape)} {_sha256(value.numpy().tobytes())}"
    else:
        yield name, repr(value)


def _varying(content: dict[str, str]) -> set[str]:
    """Return the texts of values that are normalised; zero is as good as any other constant."""
    return {text for name, text in content.items() if _is_normalised(name)} - {"0", "0.0"}


def _bytes_of(data: bytes, name: str, varying: set[str]) -> dict[str, str]:
    """Return what stands where in the file of a checkpoint."""
    found: dict[str, str] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found[f"{name}/seal"] = repr(archive.comment[:45])  # what follows are digests
        for record in archive.infolist():
            content = archive.read(record)
            here = f"{name}/{record.filename}"
            place = f"{record.file_size} bytes at {record.header_offset}, {record.extra!r}"
            found[f"{here} (record)"] = f"{place}, {record.date_time}, {record.external_attr}"
            found[here] = _sha256(_without(content, record.filename, varying))
    return found


def _without(content: bytes, record: str, varying: set[str]) -> bytes:
    """Return the content of a record with a mark for each value that varies."""
    if record.endswith(".json"):
        manifest = dict(_leaves(json.loads(content), ""))
        digest = manifest["/state_digest"].strip("'")
        return content.replace(digest.encode(), _MARK.encode())
    if not record.endswith(".pkl"):
        return content
    operations = [
        (operation.name, _MARK if repr(argument) in varying else repr(argument))
        for operation, argument, _ in pickletools.genops(content)
    ]
    return json.dumps(operations).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
