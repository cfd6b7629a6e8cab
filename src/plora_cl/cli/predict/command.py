"""``plora-cl predict``: texts as arguments, or a file of any size."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plora_cl.cli.exit import OK, exit_code
from plora_cl.cli.folders.experiment import Named, named_experiment
from plora_cl.cli.output import ending_without_output
from plora_cl.cli.parser import OneOf, Parser
from plora_cl.cli.tables import Table, show
from plora_cl.errors import DataError, ModelError, OutputError

if TYPE_CHECKING:
    from plora_cl.inference.experiment import Experiment
    from plora_cl.inference.files.job import Outcome
    from plora_cl.inference.predictions import Prediction

SOME_WITHOUT = 1
"""Exit code if rows have no prediction: they have no text."""

_PIPE = "-"
_USAGE = """\
plora-cl predict EXPERIMENT TEXT ... [flags]
       plora-cl predict EXPERIMENT --input FILE --output FILE [flags]"""
_EXAMPLE = """\
exit codes: 0 done; 1 some rows have no text to predict; 2 refused
example:
  plora-cl predict experiments/demo "the soup was hot" --task food
  plora-cl predict experiments/demo --input mails.csv --output labels.csv
"""


def predict_parser() -> Parser:
    """Return the parser of ``plora-cl predict``."""
    parser = Parser(
        prog="plora-cl predict",
        usage=_USAGE,
        description="Predict texts, or a file of them, with what a run learned.",
        epilog=_EXAMPLE,
    )
    add = parser.add_argument
    add("experiment", metavar="EXPERIMENT", help=argparse.SUPPRESS)
    add("texts", metavar="TEXT", nargs="*", help=argparse.SUPPRESS)
    add("--task", metavar="T", help="their task; without it the router infers it")
    add("--checkpoint", metavar="C", help="a file or its name; default: newest intact one")
    add("--input", metavar="FILE", help=".jsonl, .csv, .parquet, or - with --format")
    add("--text-column", metavar="C", nargs="+", help="column(s) of the text; default: text")
    add("--output", metavar="FILE", help="same types; continued where it was interrupted")
    add("--overwrite", action="store_true", help="replace the output, or start it anew")
    pipe = OneOf("jsonl", "csv")
    add("--format", metavar="jsonl|csv", type=pipe, help="type of a pipe (-); default: jsonl")
    add("--batch-size", metavar="N", type=_positive, help="texts in a forward pass")
    add("--device", metavar="D", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--json", action="store_true", help="print the predictions of TEXT as JSON")
    return parser


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``plora-cl predict`` with ``argv``, by default that of the process."""
    parser = predict_parser()
    arguments = parser.parse_intermixed_args(argv)
    _check(parser, arguments)
    with ending_without_output():
        if arguments.input is None:
            return exit_code(lambda: _predict_texts(arguments))
        return exit_code(lambda: _predict_file(arguments))


def _check(parser: Parser, arguments: argparse.Namespace) -> None:
    given = vars(arguments)
    if arguments.texts and arguments.input is not None:
        parser.error("give texts or --input, not both")
    if arguments.input is None:
        if not arguments.texts:
            parser.error("give a text to predict, or --input FILE")
        for name in ("output", "text_column", "format", "overwrite"):
            if given[name]:
                parser.error(f"--{name.replace('_', '-')} needs --input FILE")
    elif arguments.output is None:
        parser.error(f"--input needs --output FILE, or --output {_PIPE}")
    elif arguments.json:
        parser.error("--json is for texts; name an --output of type .jsonl")
    elif arguments.format and _PIPE not in (arguments.input, arguments.output):
        parser.error(f"--format is for {_PIPE}; other files have their type in their name")


def _predict_texts(arguments: argparse.Namespace) -> None:
    named = named_experiment(arguments.experiment, arguments.checkpoint, arguments.task)
    experiment = _loaded(named, arguments)
    found = experiment.predict(arguments.texts, arguments.task, batch_size=arguments.batch_size)
    if arguments.json:
        predictions = [
            {"text": text, **one.to_plain()}
            for text, one in zip(arguments.texts, found, strict=True)
        ]
        document = {"checkpoint": str(experiment.checkpoint), "predictions": predictions}
        print(json.dumps(document, indent=2))
        return
    show([_table(arguments.texts, found, inferred=arguments.task is None)])


def _table(texts: Sequence[str], found: Sequence[Prediction], *, inferred: bool) -> Table:
    title = "Predictions; the router inferred the tasks" if inferred else "Predictions"
    columns = ["label", "probability", "text"]
    rows = [
        [one.label, f"{one.probability:.3f}", text] for text, one in zip(texts, found, strict=True)
    ]
    if inferred:
        columns[2:2] = ["task", "of the task", ""]
        for row, one in zip(rows, found, strict=True):
            doubt = "doubtful" if one.abstained else ""
            row[2:2] = [one.task, f"{one.task_probability:.3f}", doubt]
    return Table(title, columns, rows, numbers=("probability", "of the task"))


def _loaded(named: Named, arguments: argparse.Namespace) -> Experiment:
    """Load the experiment, and refuse a task that it cannot predict."""
    from plora_cl.inference.experiment import load_experiment

    experiment = load_experiment(named.folder, named.checkpoint, device=arguments.device)
    if arguments.task is not None:
        experiment.task(arguments.task)
    elif not experiment.infers_tasks:
        names = ", ".join(task.name for task in experiment.tasks)
        raise ModelError(
            f"{named.folder} has no router that could infer the task (use_router: false, or no "
            f"task was finished); name one of {names} with --task"
        )
    return experiment


@dataclass(frozen=True, slots=True)
class _Files:
    """Where rows are read from and written to.

    Attributes:
        source: The input.
        source_suffix: Its type.
        output: The output; None for stdout.
        output_suffix: Its type.
    """

    source: Path
    source_suffix: str
    output: Path | None
    output_suffix: str


def _files(arguments: argparse.Namespace) -> _Files:
    """Check the files that are named, before anything is loaded.

    Raises:
        DataError: The input is missing, or of a type that cannot be read.
        OutputError: The output exists, or is of a type that cannot be written.
    """
    from plora_cl.inference.files.job import require_absent
    from plora_cl.inference.files.outputs import FILES
    from plora_cl.inference.files.rows import STDIN, input_suffix

    piped = f".{arguments.format or 'jsonl'}"
    source = STDIN if arguments.input == _PIPE else Path(arguments.input)
    suffix = piped if source == STDIN else input_suffix(source)
    if source != STDIN and not source.is_file():
        raise DataError(f"--input: there is no file {source}")
    if arguments.output == _PIPE:
        return _Files(source, suffix, None, piped)
    output = Path(arguments.output)
    if output.suffix not in FILES:
        raise OutputError(f"{output}: expected a name that ends in {', '.join(FILES)}, or {_PIPE}")
    if not output.parent.is_dir():
        raise OutputError(f"{output}: there is no folder {output.parent}; make it")
    if output.exists() and source.exists() and source.samefile(output):
        raise OutputError(f"{output} is the input; give another --output")
    if not arguments.overwrite:
        require_absent(output)
    return _Files(source, suffix, output, output.suffix)


def _predict_file(arguments: argparse.Namespace) -> int:
    files = _files(arguments)
    named = named_experiment(arguments.experiment, arguments.checkpoint, arguments.task)
    experiment = _loaded(named, arguments)
    outcome = _run(arguments, files, experiment)
    _tell(outcome, arguments.output)
    return SOME_WITHOUT if outcome.without else OK


def _run(arguments: argparse.Namespace, files: _Files, experiment: Experiment) -> Outcome:
    from plora_cl.cli.predict.progress import showing_progress
    from plora_cl.inference.files.job import FileJob
    from plora_cl.inference.files.outputs import PIPES
    from plora_cl.inference.files.rows import InputFile, TextColumns

    columns = TextColumns(tuple(arguments.text_column or ("text",)))
    source = InputFile(files.source, files.source_suffix, columns)
    size = arguments.batch_size or experiment.batch_size
    with showing_progress() as progress:
        job = FileJob(experiment, task=arguments.task, batch_size=size, progress=progress)
        if files.output is None:
            return job.to_stream(source, PIPES[files.output_suffix](sys.stdout))
        identity = _identity(experiment, arguments.task, columns.names, size)
        try:
            return job.to_file(source, files.output, identity, overwrite=arguments.overwrite)
        except KeyboardInterrupt:
            again = "the same command, without --overwrite," if arguments.overwrite else "it"
            print(f"\n{again.capitalize()} continues where this one stopped", file=sys.stderr)
            raise


def _identity(
    experiment: Experiment, task: str | None, columns: list[str], batch_size: int
) -> dict[str, Any]:
    """Return what predictions depend on; the names are shown in messages."""
    return {
        "checkpoint": f"{experiment.checkpoint.name} (SHA-256 {experiment.checkpoint_digest()})",
        "task": "inferred" if task is None else repr(task),
        "text columns": columns,
        "batch size": batch_size,
        "device": experiment.device,
    }


def _tell(outcome: Outcome, output: str) -> None:
    from plora_cl.wording import counted

    place = "stdout" if output == _PIPE else output
    doubtful = f", {outcome.doubtful} of a doubtful task" if outcome.doubtful else ""
    print(f"{counted(outcome.rows, 'row')} in {place}{doubtful}", file=sys.stderr)
    if outcome.without:
        print(
            f"{counted(outcome.without, 'row')} without a prediction; the first: "
            f"{outcome.first_problem}",
            file=sys.stderr,
        )
