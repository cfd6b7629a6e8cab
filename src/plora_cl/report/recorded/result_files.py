"""``final_results.json`` and ``computational_costs.json``, which may have been edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plora_cl.bounded_reading import parse_json, read_small
from plora_cl.config.errors import shown
from plora_cl.errors import ReportError

_MOST_BYTES, _MOST_MEMORY = 256 << 20, 1 << 30  # matrices: a thousand tasks take a tenth

_Share = Annotated[float, Field(ge=0, le=1)]
_Row = list[_Share | None]
_Difference = Annotated[float, Field(ge=-1, le=1)]
_Count = Annotated[int, Field(ge=0, le=2**53)]
_Seconds = Annotated[float, Field(ge=0, le=1e12)]


class _Plain(BaseModel):
    """A part of a result file. Other keys are ignored."""

    model_config = ConfigDict(frozen=True, strict=True)


class _Task(_Plain):
    name: str
    classes: list[str] = []
    test: _Count | None = None
    largest_class_share: _Share | None = None


class _Average(_Plain):
    average_accuracy: _Difference | None = None


class _ClassScores(_Plain):
    precision: _Share
    recall: _Share
    f1: _Share
    support: _Count


class FinalResults(_Plain):
    """The parts of ``final_results.json`` that a report shows."""

    tasks: Annotated[list[_Task], Field(min_length=1)]
    accuracy_matrix: list[_Row]
    f1_matrix: list[_Row]
    untrained_accuracy: _Row
    routed_accuracy_matrix: list[_Row] = []
    confusion: list[list[_Count] | None] = []
    average_accuracy: _Share | None = None
    backward_transfer: _Difference | None = None
    forward_transfer: _Difference | None = None
    forgetting: _Difference | None = None
    learning_accuracy: _Share | None = None
    average_anytime_accuracy: _Share | None = None
    f1: _Average = _Average()
    routed: _Average = _Average()
    zero_by_construction: dict[str, str] = {}
    parameters: dict[str, _Count] = {}
    by_class: dict[str, dict[str, _ClassScores] | None] = {}
    trajectory: dict[str, Any] | None = None


class ComputationalCosts(_Plain):
    """``computational_costs.json``, or the same part of a checkpoint."""

    seconds: dict[str, dict[str, _Seconds]] = {}
    counts: dict[str, dict[str, _Count]] = {}
    peak_memory_bytes: _Count = 0


_Model = TypeVar("_Model", bound=_Plain)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if there is no file.

    Raises:
        ReportError: It cannot be read, or is not a JSON object.
    """
    try:
        found = parse_json(read_small(path, _MOST_BYTES), _MOST_MEMORY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise _damaged(path, f"it is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise _damaged(path, f"it holds {shown(found)}; expected an object")
    return found


def checked(model: type[_Model], content: dict[str, Any], path: Path) -> _Model:
    """Return ``content`` as ``model``.

    Raises:
        ReportError: It is not what a run writes.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        problem = f"{json.dumps(place)}: {first['msg']}, found {shown(first['input'])}"
        raise _damaged(path, problem) from error


def require_square(found: FinalResults, path: Path) -> None:
    """Refuse matrices that do not have a row and a column for each task.

    Raises:
        ReportError: One has not.
    """
    tasks = len(found.tasks)
    for name in ("accuracy_matrix", "f1_matrix", "routed_accuracy_matrix"):
        rows = getattr(found, name)
        if not rows and name.startswith("routed"):
            continue
        if len(rows) != tasks or any(len(row) != tasks for row in rows):
            raise _damaged(path, f"{name} is not {tasks} x {tasks}")
    if len(found.untrained_accuracy) != tasks:
        raise _damaged(path, f"untrained_accuracy does not have {tasks} numbers")
    confusion = [row for row in found.confusion if row is not None]
    if len(found.confusion) not in (0, tasks) or any(len(row) > tasks for row in confusion):
        raise _damaged(path, f"confusion is not {tasks} x {tasks}")


def _damaged(path: Path, problem: str) -> ReportError:
    return ReportError(
        f"{path} is damaged or was edited ({problem}): remove the folder {path.parent.name}/ and "
        "resume the run with plora-cl train --resume, which writes it again"
    )
