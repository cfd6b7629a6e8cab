"""Every exception this package raises on purpose."""

from __future__ import annotations

from collections.abc import Sequence


class PloraError(Exception):
    """Base class: catch this to catch anything raised deliberately here."""


class SettingsError(PloraError):
    """One or more settings are unknown, ill-typed or contradict each other.

    Attributes:
        problems: One line each: where the setting stands, what is wrong, what would be right.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(PloraError):
    """A task cannot be read: the message names the file and the line or column."""


class ModelError(PloraError):
    """The encoder cannot be loaded, or does not have what the settings ask for."""


class MethodError(PloraError):
    """A continual-learning method cannot have an effect in this run."""


class ExtensionError(PloraError):
    """An installed package that extends this one is broken: the message names it."""


class TrainingError(PloraError):
    """Training cannot continue, for instance because the loss is not finite."""


class StudyError(PloraError):
    """The runs of a study cannot continue, or their results cannot be compared."""


class ReportError(PloraError):
    """Runs cannot be reported: a folder holds none, or a result file is damaged."""


class RunStoppedError(PloraError):
    """A run was asked to stop, and stopped at an instant at which nothing is lost.

    Attributes:
        exit_code: What the process exits with: 128 + signal, or 75 where time was up.
    """

    def __init__(self, reason: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(f"stopped by {reason}")


class ExperimentExistsError(PloraError):
    """The experiment folder holds an earlier run, and the call does not say to replace it."""


class ExperimentLockedError(PloraError):
    """Another process, or another trainer of this one, writes to the experiment folder."""


class ExperimentMovedError(ExperimentLockedError):
    """The experiment folder was moved, removed or replaced under the process that writes to it."""


class OutputError(PloraError):
    """A file of a run other than its checkpoints cannot be written: the message names it."""


class CheckpointError(PloraError):
    """A checkpoint could not be written, found or read."""


class CheckpointNotFoundError(CheckpointError):
    """No checkpoint to resume from was found."""


class CorruptCheckpointError(CheckpointError):
    """Bytes on disk do not match their digests."""


class IncompatibleCheckpointError(CheckpointError):
    """An intact checkpoint belongs to a run with other settings or another structure."""
