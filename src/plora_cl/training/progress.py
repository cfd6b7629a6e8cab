"""The progress of a trainer that a program asked to show."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pkgutil import resolve_name

from plora_cl.training.reporting import Reporter

_SHOWN = "plora_cl.cli.progress:reporter_for"  # by name: training knows nothing of terminals


def shown(reporter: Reporter | None, *, progress: bool) -> AbstractContextManager[Reporter]:
    """Return a context whose value is ``reporter``, or the one that ``plora-cl train`` takes.

    Args:
        reporter: What the program passed.
        progress: Whether to show the progress where it passed none.
    """
    if reporter is not None or not progress:
        return nullcontext(reporter or Reporter())
    found: AbstractContextManager[Reporter] = resolve_name(_SHOWN)()
    return found
