"""``plora-cl floor``, also as ``python -m plora_cl.cli.train.floor``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plora_cl.cli.exit import exit_code
from plora_cl.cli.output import continuing_without_output
from plora_cl.cli.progress import announce, reporter_for
from plora_cl.cli.train.flags import floor_parser, resolved
from plora_cl.config.inputs import require_inputs
from plora_cl.config.precedence import resolve
from plora_cl.config.schema import Settings

SUFFIX = "-floor"
"""Appended to the name of the experiment, so that the floor never replaces a run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Learn the floor with the flags in ``argv``; return the exit code."""
    typed = vars(floor_parser().parse_args(argv))
    with continuing_without_output():
        return exit_code(lambda: _learn(_floor_settings(typed), quiet="quiet" in typed))


def planned(config: Path) -> int:
    """Learn the floor as a study planned it; return the exit code."""
    with continuing_without_output():
        return exit_code(lambda: _learn(resolve(config=config).settings))


def _floor_settings(typed: dict[str, Any]) -> Settings:
    settings = resolved(typed).settings
    if "experiment_name" in typed or settings.experiment_name.endswith(SUFFIX):
        return settings
    return settings.model_copy(update={"experiment_name": settings.experiment_name + SUFFIX})


def _learn(settings: Settings, *, quiet: bool = False) -> None:
    require_inputs([settings])
    if not quiet:
        announce(settings)
    from plora_cl.baselines.floor_run import (
        learn_floor,  # takes seconds, and a refusal does not need it
    )

    with reporter_for(quiet=quiet) as reporter:
        learn_floor(settings, reporter)


if __name__ == "__main__":
    raise SystemExit(main())
