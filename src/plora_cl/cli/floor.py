"""The floor beside a run: ``python -m plora_cl.cli.floor --config FILE``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from plora_cl.cli.exit import exit_code
from plora_cl.cli.progress import reporter_for
from plora_cl.config.sources import resolve


def main(argv: Sequence[str] | None = None) -> int:
    """Learn the floor with the flags in ``argv``; return the exit code."""
    parser = argparse.ArgumentParser(prog="plora_cl.cli.floor", description=__doc__)
    parser.add_argument("--config", metavar="FILE", type=Path, required=True, help="the settings")
    config = parser.parse_args(argv).config
    return exit_code(lambda: _learn(config))


def _learn(config: Path) -> None:
    settings = resolve(config=config).settings
    from plora_cl.training.floor import learn_floor  # takes seconds: not needed to refuse

    with reporter_for() as reporter:
        learn_floor(settings, reporter)


if __name__ == "__main__":
    raise SystemExit(main())
