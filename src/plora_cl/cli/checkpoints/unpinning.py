"""``plora-cl checkpoints unpin``."""

from __future__ import annotations

from collections.abc import Sequence

from plora_cl.checkpoint.store.pins import unpin
from plora_cl.cli.checkpoints.command import (
    Target,
    add_target,
    command_parser,
    finish,
    locate,
    write_json,
)
from plora_cl.cli.exit import OK


def main(argv: Sequence[str]) -> int:
    """Unpin what ``argv`` names; return the exit code."""
    parser = command_parser(
        "unpin",
        "Let rotation have a checkpoint again; it stays until the run saves the next time.",
        ["experiments/demo@checkpoint_task0_epoch1_batch99.pt"],
        ok="it is not pinned",
        found="(does not occur)",
    )
    add_target(parser, default="; a folder stands for its newest checkpoint")
    arguments = parser.parse_args(argv)
    return finish(lambda: _unpin(locate(arguments.target), as_json=arguments.json))


def _unpin(target: Target, *, as_json: bool) -> int:
    entry = target.checkpoint
    was_pinned = unpin(target.store, entry)
    if as_json:
        write_json({"checkpoint": str(entry.path), "pinned": False, "was_pinned": was_pinned})
    else:
        print(f"{'Unpinned' if was_pinned else 'Was not pinned'}: {entry.path}")
    return OK
