"""``plora-cl``: imports the command that is asked for and runs it.

The module of a command is imported only when it runs, so that ``plora-cl --help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from plora_cl.cli.exit import OK, exit_code, show_tracebacks
from plora_cl.cli.output import ending_without_output, open_standard_streams
from plora_cl.cli.parser import Commands, commands_parser, run_command

COMMANDS: Commands = {
    "train": ("plora_cl.cli.train.command", "learn a stream of tasks, or resume one"),
    "init": ("plora_cl.cli.settings:init", "write a file of settings to start from"),
    "settings": ("plora_cl.cli.settings:show_settings", "show what can be set, or its schema"),
    "floor": ("plora_cl.cli.train.floor", "learn the same tasks without an encoder, to compare"),
    "add-task": ("plora_cl.cli.train.add_task", "let a finished experiment learn one more task"),
    "predict": ("plora_cl.cli.predict.command", "predict texts or files with what a run learned"),
    "evaluate": ("plora_cl.cli.folders.evaluate:run_evaluate", "measure it on new labelled texts"),
    "export": ("plora_cl.cli.export.command", "export a task for PEFT, transformers or ONNX"),
    "serve": ("plora_cl.cli.serve", "answer predictions over HTTP"),
    "results": (
        "plora_cl.cli.folders.results:show_results",
        "show the scores of experiments again",
    ),
    "report": ("plora_cl.cli.report", "write a page, figures and LaTeX tables of runs"),
    "status": (
        "plora_cl.cli.folders.status:show_status",
        "show where every run in a folder stands",
    ),
    "study": ("plora_cl.cli.study.command", "run methods x orders x seeds, and compare them"),
    "cache": ("plora_cl.cli.folders.cache:run_cache", "show or clear the caches of texts"),
    "checkpoints": ("plora_cl.cli.checkpoints.main", "manage checkpoints"),
    "completion": ("plora_cl.cli.completion:run_completion", "complete commands in a shell"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``plora-cl`` with ``argv``, by default that of the process; return the exit code."""
    open_standard_streams()
    show_tracebacks(on=False)
    with ending_without_output():
        return exit_code(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    description = "Continual learning of text classification with progressive LoRA."
    example = "plora-cl train --preset quickstart"
    parser = commands_parser("plora-cl", description, COMMANDS, example)
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    parsed = parser.parse_args(argv)
    if parsed.version:
        from importlib.metadata import version

        print(f"plora-cl {version('plora-cl')}")
        return OK
    return run_command(parser, parsed, COMMANDS)


if __name__ == "__main__":
    raise SystemExit(main())
