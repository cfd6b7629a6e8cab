"""``plora-cl checkpoints verify``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

from plora_cl.checkpoint.tools.verification import Verification, verify
from plora_cl.cli.checkpoints.command import Target, command, locate, target
from plora_cl.cli.checkpoints.contents import problems, status
from plora_cl.cli.command import FOUND, Answer
from plora_cl.cli.exit import OK
from plora_cl.cli.tables import Table
from plora_cl.wording import counted, shown_bytes


@command(
    "verify",
    "Read every byte of one or all checkpoints and of every object they need; report damage, and "
    "from which checkpoint a run would resume.",
    target("; a folder means all of its checkpoints"),
    examples=["experiments/demo", "experiments/demo@checkpoint_task0_epoch1_batch9.pt"],
    ok="everything is intact",
    found="something is damaged or unreadable",
)
def verify_all(arguments: Namespace) -> Answer:
    """Verify one checkpoint or all of an experiment."""
    asked = locate(arguments.target)
    found = verify(asked.store, None if asked.entry is None else [asked.entry])
    resumed = found.resumes_from
    document = {
        "directory": str(asked.store.directory),
        "intact": found.is_intact,
        "checkpoints": [
            {"name": v.entry.path.name, "status": status(v, "intact"), "problem": v.problem}
            for v in found.verdicts
        ],
        "objects": found.objects,
        "bytes_read": found.bytes_read,
        "unreferenced": [{"path": str(p), "bytes": n} for p, n in found.unreferenced.items()],
        "resumes_from": None if resumed is None else resumed.path.name,
    }
    return Answer(document, _shown(asked, found), OK if found.is_intact else FOUND)


def _shown(asked: Target, found: Verification) -> Iterator[str | Table]:
    rows = [(v.entry.path.name, status(v, "intact")) for v in found.verdicts]
    yield Table(str(asked.store.directory), ("checkpoint", "state"), rows)
    yield from problems(found.verdicts)
    yield f"{shown_bytes(found.bytes_read)} read; intact: {counted(found.objects, 'object')}"
    for path, size in found.unreferenced.items():
        yield f"not referred to: {path} ({shown_bytes(size)})"
    if asked.entry is None:
        resumed = found.resumes_from
        yield f"a run would be resumed from: {'nothing' if resumed is None else resumed.path.name}"
        if found.stops_resuming is not None:
            yield found.stops_resuming
