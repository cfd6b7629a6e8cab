"""Whether runs that name the same sources read the same texts from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from plora_cl.data.sources.classes import digest_of_part
from plora_cl.data.sources.declaration import spelled_out
from plora_cl.errors import StudyError
from plora_cl.folders.published import ExampleDigests
from plora_cl.study.plan import PlannedRun
from plora_cl.study.records import Record, Validation


class _Read(NamedTuple):
    """A task as a run read it: its source, its classes, and the digest of their content."""

    run: PlannedRun
    task: str
    place: str
    classes: tuple[str, ...]
    digest: str


def check_same_sources(measured: Iterable[Record | Validation]) -> None:
    """Make sure that runs and trials that name the same sources read the same texts.

    Order, seed, method and size of the subset do not matter: the digests cover whole sources.
    Results of earlier versions, which have no such digest, are skipped.

    Raises:
        StudyError: The texts changed between two of them.
    """
    read = [each for one in measured for each in _reads(one.run, one.data)]
    first: dict[tuple[str, tuple[str, ...]], _Read] = {}
    for one in sorted(read, key=lambda each: bool(each.classes)):  # wholes before their parts
        whole = first.get((one.place, ()))
        if one.classes and whole is not None:
            other, expected = whole, digest_of_part(whole.digest, one.classes)
        else:
            other = first.setdefault((one.place, one.classes), one)
            expected = other.digest
        if one.digest != expected:
            raise StudyError(
                f"{one.run.folder} and {other.run.folder} learned the task {one.task!r} from "
                "different texts, so that they cannot be compared; the files must have changed in "
                "between: remove the older folder and start again"
            )


def _reads(run: PlannedRun, data: Sequence[ExampleDigests]) -> Iterator[_Read]:
    for entry, task in zip(run.settings.tasks, data, strict=True):
        if task.source is not None:
            whole = spelled_out(entry)
            classes = tuple(sorted(whole.pop("classes", None) or ()))
            whole.pop("name", None)  # does not change the texts
            place = json.dumps(whole, sort_keys=True)
            yield _Read(run, task.name, place, classes, task.source)
