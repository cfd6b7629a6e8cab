"""``plora-cl train``, also as ``python -m plora_cl.cli.train``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from plora_cl.checkpoint.disk.lock import require_free
from plora_cl.checkpoint.store.preconditions import require_startable
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.cli.exit import exit_code
from plora_cl.cli.output import continuing_without_output, ending_without_output
from plora_cl.cli.progress import announce, reporter_for
from plora_cl.cli.signals import stopping
from plora_cl.cli.train.flags import resolved, train_parser
from plora_cl.cli.train.resume_path import checkpoint_path, resume_hint
from plora_cl.config.consistency import ineffective
from plora_cl.config.inputs import require_inputs
from plora_cl.config.locations import RECORD
from plora_cl.config.presets import preset_title
from plora_cl.config.schema import Settings, experiment_folder
from plora_cl.errors import CheckpointError, RunStoppedError
from plora_cl.training.reporting import standing
from plora_cl.training.stopping import StopRequest


def main(argv: Sequence[str] | None = None) -> int:
    """Train with the flags in ``argv``, by default those of the process; return the exit code."""
    parser = train_parser()
    typed = vars(parser.parse_args(argv))
    if "accept_changes" in typed and "resume" not in typed:
        parser.error("--accept-changes needs --resume")
    if "json" in typed and "dry_run" not in typed:
        parser.error("--json needs --dry-run")
    if "dry_run" in typed:
        with ending_without_output():
            return exit_code(lambda: _preview(typed))
    with continuing_without_output():
        return exit_code(lambda: _train(typed))


def _train(typed: dict[str, Any]) -> None:
    settings, request = _accepted(typed)
    quiet = "quiet" in typed
    if "preset" in typed and not quiet:
        print(f"Preset {typed['preset']}: {preset_title(typed['preset'])}")
    stop = StopRequest()
    with stopping(stop):
        if "max_time" in typed:
            stop.limit(typed["max_time"], "--max-time")
        _learn(settings, experiment_folder(settings), request, stop, quiet=quiet)


def _preview(typed: dict[str, Any]) -> None:
    from plora_cl.cli.train.dry_run import preview

    settings, request = _accepted(typed)
    preview(settings, resume=bool(request["resume"]), as_json="json" in typed)


def _accepted(typed: dict[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """Return settings and request of a run, once all is refused that takes no loading to refuse."""
    if isinstance(resume := typed.get("resume"), str) and resume != "auto":
        typed["resume"] = checkpoint_path(
            resume, lambda: experiment_folder(resolved({**typed, "resume": True}).settings)
        )
    asked = resolved(typed)
    for line in ineffective(asked.settings, asked.given):
        print(f"Note: {line}", file=sys.stderr)

    request = {name: typed.get(name, False) for name in ("resume", "overwrite")}
    folder = experiment_folder(asked.settings)
    require_free(folder)
    require_startable(CheckpointStore(folder / "checkpoints"), **request)
    require_inputs([asked.settings])
    request["accept_changes"] = "accept_changes" in typed
    return asked.settings, request


def _learn(
    settings: Settings, folder: Path, request: dict[str, Any], stop: StopRequest, *, quiet: bool
) -> None:
    if not quiet:
        announce(settings)
    from plora_cl.training.trainer import CLTrainer  # takes seconds, and a refusal does not need it

    with reporter_for(quiet=quiet) as reporter:
        trainer = CLTrainer.from_settings(settings, reporter=reporter, stop=stop)
        try:
            trainer.train_sequence(**request)
        except RunStoppedError:
            reporter.message(_next_command(folder.absolute(), request, undone=trainer.undone))
            raise


def _next_command(folder: Path, request: Mapping[str, Any], *, undone: bool) -> str:
    """Say how to continue after a stop.

    Args:
        folder: Of the experiment.
        request: How the run was started: ``resume`` and ``accept_changes``.
        undone: The run was stopped before it had changed anything.
    """
    found = _standing(folder) if undone and request["resume"] else None
    if found is None:
        if undone or not (folder / RECORD).is_file():  # the record may belong to an earlier run
            return "Nothing was learned yet; start the same command again"
        return resume_hint(folder)
    told = f"Nothing new was learned; the run stands at {found}"
    if request["resume"] not in (True, "auto") or request["accept_changes"]:
        return f"{told}; start the same command again"
    return f"{told}\n{resume_hint(folder)}"


def _standing(folder: Path) -> str | None:
    """Return the position of the newest checkpoint whose manifest is intact."""
    store = CheckpointStore(folder / "checkpoints")
    for entry in reversed(store.entries()):
        with suppress(CheckpointError):
            return standing(store.manifest(entry).cursor)
    return None


if __name__ == "__main__":
    raise SystemExit(main())
