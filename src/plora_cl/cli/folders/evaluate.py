"""``plora-cl evaluate``: the scores of an experiment on new labelled texts."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plora_cl.cli.command import Answer, argument, command
from plora_cl.cli.tables import Table
from plora_cl.data.sources.base import Columns, Row
from plora_cl.data.sources.readers import READERS
from plora_cl.errors import DataError
from plora_cl.folders.labels import learned_classes, require_known, require_task

if TYPE_CHECKING:
    from plora_cl.inference.evaluation import Evaluation


@command(
    "evaluate",
    "Measure an experiment on labelled texts that it has not seen: accuracy, macro-F1, and the "
    "scores of each class. The folder of the experiment and the file are enough.",
    argument("experiment", metavar="EXPERIMENT", type=Path, help="its folder"),
    argument("file", metavar="FILE", type=Path, help="texts with labels: .jsonl, .csv, .parquet"),
    argument("--task", metavar="T", required=True, help="whose classes the labels are"),
    argument("--text-column", metavar="NAME", action="append", help="by default: text"),
    argument("--label-column", metavar="NAME", default="label", help="by default: label"),
    argument("--checkpoint", metavar="C", help="a checkpoint; by default the newest intact one"),
    argument("--batch-size", metavar="N", type=int, help="by default: eval_batch_size of the run"),
    argument("--device", metavar="D", default="auto", help="auto, cpu, cuda, cuda:N or mps"),
    examples=["experiments/demo march.csv --task reviews --text-column body"],
    ok="it was measured",
    found="the checkpoint is damaged",
)
def run_evaluate(arguments: Namespace) -> Answer:
    """Measure on new texts."""
    folder, path, task = arguments.experiment, arguments.file, arguments.task
    checkpoint = _checkpoint(folder, arguments.checkpoint)
    if arguments.batch_size is not None and arguments.batch_size < 1:
        raise DataError(f"--batch-size {arguments.batch_size}; expected at least 1")
    classes = require_task(task, learned_classes(folder, checkpoint), folder)
    columns = Columns(tuple(arguments.text_column or ("text",)), arguments.label_column)
    rows = _rows(path, columns)
    require_known([row.label for row in rows], classes, task, str(path))
    from plora_cl.inference.evaluation import evaluate
    from plora_cl.inference.experiment import load_experiment

    experiment = load_experiment(folder, checkpoint, device=arguments.device)
    with _progress(len(rows)) as done:
        found = evaluate(
            experiment,
            [row.text for row in rows],
            [row.label for row in rows],
            task,
            batch_size=arguments.batch_size,
            progress=done,
        )
    document = {
        "experiment": str(folder),
        "checkpoint": experiment.checkpoint.name,
        "file": str(path),
        **asdict(found),
    }
    return Answer(document, _shown(found, document))


def _checkpoint(folder: Path, named: str | None) -> Path | None:
    """Return the file that ``--checkpoint`` names: a path, or a name within the experiment."""
    if named is None:
        return None
    path = Path(named)
    return path if path.is_file() else folder / "checkpoints" / path.name


def _rows(path: Path, columns: Columns) -> list[Row]:
    reader = READERS.get(path.suffix)
    if reader is None:
        raise DataError(f"{path}: expected a file that ends in {', '.join(READERS)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected texts with labels")
    found = [columns.row(record, str(path), line) for line, record in reader(path, columns)]
    if not found:
        raise DataError(f"{path}: there is no text in it")
    return found


def _progress(total: int) -> Any:
    """Return a context that shows a bar on a terminal; its value receives the texts done."""
    if not sys.stderr.isatty():
        return nullcontext(lambda _: None)
    return _Bar(total)


class _Bar:
    """A bar on stderr."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("Texts", total=total)

    def __enter__(self) -> Any:
        self._progress.start()
        return lambda done: self._progress.update(self._task, completed=done)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _shown(found: Evaluation, document: dict[str, Any]) -> Iterator[str | Table]:
    yield f"{document['experiment']} ({document['checkpoint']}), task {found.task}"
    yield f"{document['file']}: {found.texts} texts"
    yield f"accuracy {found.accuracy:.3f}, macro-F1 {found.f1:.3f}"
    rows = [
        (name, *(f"{s[key]:.3f}" for key in ("precision", "recall", "f1")), str(s["support"]))
        for name, s in found.by_class.items()
    ]
    numbers = ("precision", "recall", "F1", "texts")
    yield Table("By class", ("class", *numbers), rows, numbers)
    absent = [name for name, scores in found.by_class.items() if not scores["support"]]
    if absent:
        yield f"Note: no text has the class {', '.join(absent)}; macro-F1 takes its F1 as 0"
