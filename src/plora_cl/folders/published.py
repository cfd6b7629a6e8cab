"""The result file of a run, checked before it is used: it may be damaged or edited."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from plora_cl.bounded_reading import parse_json, read_small

RESULTS = Path("results") / "final_results.json"
"""The file in the folder of an experiment."""

_MOST_BYTES, _MOST_MEMORY = 256 << 20, 1 << 30  # matrices: a thousand tasks take a tenth

Share = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]
_Seconds = Annotated[float, Field(ge=0, le=1e12)]  # tens of thousands of years
_Count = Annotated[int, Field(ge=0, le=2**53)]


class _Plain(BaseModel):
    """A part of a result file. Other keys are ignored."""

    model_config = ConfigDict(frozen=True, strict=True)


class ExampleDigests(_Plain):
    """Digests of the examples of a task."""

    name: str
    train: str
    test: str
    source: str | None = None  # earlier versions did not record it


class _Identity(_Plain):
    data: Annotated[list[ExampleDigests], Field(min_length=1)]


class _Scores(_Plain):
    average_accuracy: Difference | None = None


class _ValidationScores(_Plain):
    average_accuracy: Share | None = None


class PublishedTask(_Plain):
    """What the file says of a task."""

    name: str
    validation: _Count = 0


class Published(_Plain):
    """The parts of ``final_results.json`` that comparisons use."""

    average_accuracy: Share
    backward_transfer: Difference | None = None
    forgetting: Difference | None = None
    forward_transfer: Difference | None = None
    learning_accuracy: Difference | None = None
    average_anytime_accuracy: Difference | None = None
    wall_clock_seconds: _Seconds | None = None
    f1: _Scores
    routed: _Scores
    gap: _Scores
    validation: _ValidationScores | None = None
    accuracy_matrix: Annotated[list[list[Share | None]], Field(min_length=1)]
    tasks: Annotated[list[PublishedTask], Field(min_length=1)]
    zero_by_construction: dict[str, str]
    identity: _Identity


class ClassScores(_Plain):
    """Scores of a class on the test split; ``support`` counts its texts."""

    precision: Share
    recall: Share
    f1: Share
    support: _Count


class _ShownTask(PublishedTask):
    classes: list[str]
    test: _Count
    largest_class_share: Share | None = None


class Shown(Published):
    """The parts of ``final_results.json`` that tables show."""

    tasks: Annotated[list[_ShownTask], Field(min_length=1)]  # type: ignore[assignment]
    f1_matrix: list[list[Share | None]]
    routed_accuracy_matrix: list[list[Share | None]] = []
    routed_f1_matrix: list[list[Share | None]] = []
    by_class: dict[str, dict[str, ClassScores] | None] = {}


def results_in(folder: Path) -> dict[str, Any] | None:
    """Return the content of the result file; None where there is none, or it is no JSON mapping.

    A run that a power cut ended leaves a torn file, and writes it again.

    Raises:
        OSError: It cannot be read.
    """
    return json_object(folder / RESULTS)


def json_object(path: Path) -> dict[str, Any] | None:
    """Return the JSON mapping in a file; None where there is no file, or it holds something else.

    Raises:
        OSError: It cannot be read.
    """
    try:
        found = parse_json(read_small(path, _MOST_BYTES), _MOST_MEMORY)
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
