"""An experiment as its user loads it: predictions and scores, from its folder alone."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from plora_cl.checkpoint.reading import load_checkpoint
from plora_cl.checkpoint.snapshot.loading import Resumable
from plora_cl.errors import CheckpointNotFoundError, ModelError
from plora_cl.inference.loaded import LearnedTask, LoadedModel, load_model
from plora_cl.inference.predictions import Predictions
from plora_cl.inference.predictor import TextPredictor
from plora_cl.inference.scores import ScoreFrames, score_frames
from plora_cl.wording import nearest

if TYPE_CHECKING:
    from os import PathLike


class Experiment:
    """What a run learned, as it was when a checkpoint was saved.

    There is one base model in memory, however many tasks there are. Methods may be called from
    several threads; they take turns.

    Args:
        folder: Of the experiment.
        resumable: The checkpoint.
        loaded: Its model.
        device: As it was asked for.

    Attributes:
        folder: Of the experiment.
        checkpoint: The file that was loaded.
        tasks: What can be predicted, in the order of the stream.
        settings: Of the run.
        snapshot: What the checkpoint says of its run, without its state.
        classifier: The model.
        tokenizer: Of its encoder.
    """

    def __init__(
        self, folder: Path, resumable: Resumable, loaded: LoadedModel, *, device: str
    ) -> None:
        self.folder, self.checkpoint = folder, resumable.entry.path
        self.tasks: tuple[LearnedTask, ...] = tuple(loaded.tasks)
        self.classifier, self.tokenizer = loaded.classifier, loaded.tokenizer
        self.settings, self.snapshot = loaded.settings, replace(resumable.snapshot, state={})
        self._loaded, self._device = loaded, device
        self._scores = resumable.snapshot.state["scores"]
        self._names = [task["name"] for task in resumable.snapshot.facts.identity["data"]]
        self._turn = threading.Lock()

    def __repr__(self) -> str:
        names = ", ".join(task.name for task in self.tasks)
        return f"Experiment({str(self.folder)!r}, {self.checkpoint.name}, tasks: {names})"

    def checkpoint_digest(self) -> str:
        """Return the SHA-256 of the checkpoint file.

        Raises:
            CheckpointNotFoundError: It was rotated away since it was loaded.
        """
        try:
            with self.checkpoint.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise CheckpointNotFoundError(
                f"{self.checkpoint} was rotated away by the run in its folder; load the "
                "experiment again, or keep one with plora-cl checkpoints pin"
            ) from error

    def task(self, name: str) -> LearnedTask:
        """Return a task by its name.

        Raises:
            ModelError: There is no such task.
        """
        return self.tasks[self._index(name)]

    @property
    def device(self) -> str:
        """Where it computes: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
        return str(self._loaded.accelerator.device)

    @property
    def batch_size(self) -> int:
        """Texts in a forward pass where none is given: ``eval_batch_size`` of the run."""
        return self._loaded.settings.eval_batch_size

    @property
    def infers_tasks(self) -> bool:
        """Whether texts can be predicted without naming their task."""
        return self._loaded.choice is not None

    def predict(
        self,
        texts: Iterable[str],
        task: str | Sequence[str | None] | None = None,
        *,
        batch_size: int | None = None,
    ) -> Predictions:
        """Predict texts, in their order.

        Args:
            texts: What to predict; cut to the ``max_length`` of the run.
            task: The task of all texts, or one for each. None infers the task with the run's
                router, and marks a doubtful choice as abstained.
            batch_size: Texts in a forward pass; ``eval_batch_size`` of the run by default.

        Raises:
            ModelError: There is no such task, or no router to infer tasks with.
            DataError: A text is no str, or has no tokens.
        """
        listed = _texts(texts)
        tasks = self._tasks(task, len(listed))
        with self._turn:
            return Predictions(list(self._predictor(batch_size).predictions(listed, tasks)))

    def predict_proba(
        self, texts: Iterable[str], task: str, *, batch_size: int | None = None
    ) -> npt.NDArray[np.float64]:
        """Return the probabilities of the classes of one task, ``[texts, classes]``.

        Columns are in the order of ``experiment.task(task).classes``; each row sums to 1.

        Args:
            texts: What to predict.
            task: Their task.
            batch_size: See `predict`.

        Raises:
            ModelError: There is no such task.
            DataError: A text is no str, or has no tokens.
        """
        logits = torch.from_numpy(self.logits(texts, task, batch_size=batch_size))
        return torch.softmax(logits.double(), 1).numpy()

    def logits(
        self, texts: Iterable[str], task: str, *, batch_size: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Return what `predict_proba` is the softmax of, float32 ``[texts, classes]``."""
        listed, index = _texts(texts), self._index(task)
        with self._turn:
            found = list(self._predictor(batch_size).logits(listed, [index] * len(listed)))
        return torch.stack([torch.empty(len(self.tasks[index].classes)), *found])[1:].numpy()

    def scores(self) -> ScoreFrames:
        """Return the scores on the test splits that the checkpoint holds."""
        return score_frames(self._scores, self._names)

    def at(self, checkpoint: str | PathLike[str]) -> Experiment:
        """Return the experiment as it was at another checkpoint of it.

        Args:
            checkpoint: A file, or its name within the experiment.

        The base model is shared with this one.
        """
        return _loaded(self.folder, checkpoint, device=self._device, sharing=self._loaded)

    def newest(self) -> Experiment:
        """Return the experiment as it is now: a run may have saved or been resumed since."""
        return _loaded(self.folder, None, device=self._device, sharing=self._loaded)

    def _predictor(self, batch_size: int | None) -> TextPredictor:
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise ValueError(f"batch_size is {size}; expected at least 1")
        return TextPredictor(self._loaded, batch_size=size)

    def _tasks(self, task: str | Sequence[str | None] | None, count: int) -> list[int | None]:
        of_each = [task] * count if task is None or isinstance(task, str) else list(task)
        if len(of_each) != count:
            raise ValueError(f"{len(of_each)} tasks for {count} texts; expected one for each text")
        return [None if name is None else self._index(name) for name in of_each]

    def _index(self, name: str) -> int:
        names = [task.name for task in self.tasks]
        if name in names:
            return names.index(name)
        meant = nearest(str(name), names)
        later = " (the run learns it later)" if name in self._names else ""
        raise ModelError(
            f"task {name!r} is not in {self.checkpoint.name}{later}; "
            + (f"did you mean {meant!r}? it has " if meant else "it has ")
            + ", ".join(names)
        )


def _texts(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError(f"texts is a str; expected a list of texts, such as [{texts[:20]!r}]")
    return list(texts)


def load_experiment(
    folder: str | PathLike[str],
    checkpoint: str | PathLike[str] | None = None,
    *,
    device: str = "auto",
) -> Experiment:
    """Load what a run learned, to predict with it.

    Every byte is verified, and nothing in the folder is executed. Data, settings file and model
    folder of the run are not needed. A run may be training in the folder.

    Args:
        folder: Of the experiment.
        checkpoint: A checkpoint file, or its name within the experiment; None for the one that
            the run would resume from: the newest that is not damaged.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        CheckpointNotFoundError: There is no such folder or checkpoint.
        CheckpointError: The checkpoint is damaged, or not one of ``plora-cl train``.
        ModelError: The device or the encoder is missing.
    """
    return _loaded(Path(folder), checkpoint, device=device)


def _loaded(
    folder: Path,
    checkpoint: str | PathLike[str] | None,
    *,
    device: str,
    sharing: LoadedModel | None = None,
) -> Experiment:
    """Load an experiment; with ``sharing`` it uses the base weights of another one if it can."""
    path = folder
    if checkpoint is not None:
        named = folder / "checkpoints" / Path(checkpoint).name
        path = Path(checkpoint) if Path(checkpoint).is_file() else named
        if not path.is_file():
            raise CheckpointNotFoundError(
                f"{folder} has no checkpoint {str(checkpoint)!r}; "
                f"see: plora-cl checkpoints list {folder}"
            )
    known = None if sharing is None else sharing.base_digest
    resumable = load_checkpoint(path, is_known=lambda digest: digest == known)
    loaded = load_model(resumable, device=device, sharing=sharing)
    return Experiment(folder, resumable, loaded, device=device)
