"""The experiment that a server predicts with: the newest durable checkpoint of a folder."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from plora_cl.checkpoint.format.naming import is_checkpoint
from plora_cl.errors import PloraError
from plora_cl.inference.experiment import Experiment

log = logging.getLogger(__name__)

_Files = frozenset[tuple[str, int, int]]
"""Name, inode and time of change of every checkpoint: each commit renames a new file into place."""


class Follower:
    """Loads each new checkpoint of an experiment, and swaps it in when it is verified.

    Whoever predicts takes `experiment` once a batch: a batch is predicted by one checkpoint.

    Args:
        experiment: What to begin with.
        seconds: Between two looks into the folder; 0 never looks.
        on_swap: Told whether each attempt succeeded.
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        seconds: float,
        on_swap: Callable[[bool], None] = lambda succeeded: None,
    ) -> None:
        self.experiment = experiment
        self._seconds, self._on_swap = seconds, on_swap
        self._seen: _Files = frozenset()
        self._seen = self._files()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="following", daemon=True)

    def start(self) -> None:
        """Begin to look, unless that is off."""
        if self._seconds:
            self._thread.start()

    def stop(self) -> None:
        """Stop looking; a checkpoint that is being loaded is dropped."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Load the newest checkpoint if one was committed since the last look."""
        now = self._files()
        new, self._seen = now - self._seen, now
        if not new:
            return
        try:
            self.experiment = self.experiment.newest()
        except (PloraError, OSError) as error:
            log.warning("still serving %s: %s", self.experiment.checkpoint.name, error)
            self._on_swap(False)
            return
        log.info("serving %s", self.experiment.checkpoint.name)
        self._on_swap(True)

    def _follow(self) -> None:
        while not self._stopped.wait(self._seconds):
            self.look()

    def _files(self) -> _Files:
        try:
            folder = self.experiment.folder / "checkpoints"
            paths = [path for path in folder.iterdir() if is_checkpoint(path.name)]
            status = [(path.name, path.stat()) for path in paths]
        except OSError:
            return self._seen  # a file was removed meanwhile: look again later
        return frozenset((name, s.st_ino, s.st_mtime_ns) for name, s in status)
