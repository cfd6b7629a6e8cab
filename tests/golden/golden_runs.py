"""One small run with every technique on, by the command line of a source tree, killed or not.

Nothing of the package is imported here: its modules may have other names in each tree.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

EXPERIMENT = Path("experiments", "golden")
"""Below the folder of `Runs`."""

_VARIABLES = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
_PRELOADED = (
    "accelerate",
    "datasets",
    "peft",
    "pydantic",
    "rich.progress",
    "safetensors.torch",
    "scipy.stats",
    "sklearn.linear_model",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gpt2.modeling_gpt2",
)
_LEAP = 60.0  # above the seconds between two saves of long work
_SEAL = 193
_PATIENCE = 600.0


@dataclass(frozen=True)
class Kill:
    """A SIGKILL in place of the rename that would commit a file.

    Attributes:
        during: What the run is doing then.
        file: Pattern for the name of the file.
        task: In the cursor of that checkpoint; None for any other file.
        phase: In the cursor of that checkpoint; None for any other file.
        nth: Which of the commits that fit, counted from 1 in each process.
        unit_by_unit: Whether the run saves after each unit of long work, so that it goes on in the
            middle of a phase. Otherwise it begins the phase anew.
    """

    during: str
    file: str = "checkpoint_*.pt"
    task: int | None = None
    phase: str | None = None
    nth: int = 1
    unit_by_unit: bool = True


KILLS = (
    Kill("training on the first task", task=0, phase="train", nth=2),
    Kill("a validation", task=0, phase="validate", nth=2),
    Kill("the Fisher estimate", task=0, phase="consolidate", nth=4),
    Kill("the tuning of the generator", task=0, phase="consolidate", nth=6),
    Kill("an evaluation", task=0, phase="evaluate", nth=5),
    Kill("the publication of a task", task=0, phase="done"),
    Kill("the writing of texts to replay", task=1, phase="prepare", nth=5),
    Kill("training on the second task", task=1, phase="train", nth=3),
    Kill("all of a consolidation", task=1, phase="evaluate", unit_by_unit=False),
    Kill("the publication of the results", file="final_results.json"),
)
"""In turn; each process counts from where the last one was killed. The fourth of these finds three
commits of the Fisher estimate left, and three of the tuning."""


class RunError(Exception):
    """A run did not end as it had to."""


class Runs:
    """Runs `plora-cl train` of source trees, one at a time, always in the same folder.

    To import what the package needs takes most of the time of so small a run. It is paid once: a
    run that is killed is a fork of this process, which has all of it but the package itself.

    Args:
        folder: An empty folder; the run is in `EXPERIMENT` below it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._output = folder / "output.txt"
        assert "torch" not in sys.modules, "it has read its variables already"
        os.environ.update(_VARIABLES)
        for name in _PRELOADED:
            importlib.import_module(name)
        self._require(0, self._fork(self._make_inputs), "the inputs")

    def without_a_kill(self, tree: Path) -> None:
        """Run to the end in a new Python."""
        self._clear()
        module, function = _entry(tree)
        start = f"import sys; from {module} import {function}; sys.exit({function}())"
        variables = {**os.environ, "PYTHONPATH": str(tree / "src")}
        with self._output.open("wb") as output:
            status = subprocess.run(
                [sys.executable, "-P", "-c", start, "train", "--config", "golden.yaml"],
                cwd=self.folder,
                env=variables,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_PATIENCE,
                check=False,
            ).returncode
        self._require(0, status, "a run that nothing stops")

    def with_kills(self, tree: Path, kills: Sequence[Kill] = KILLS) -> None:
        """Run to the end, killed as planned on the way, each time resumed."""
        self._clear()
        for kill in (*kills, None):
            status = self._fork(partial(self._train, tree, kill))
            expected = 0 if kill is None else -signal.SIGKILL
            self._require(expected, status, kill.during if kill else "the end of a killed run")

    def _clear(self) -> None:
        for name in ("experiments", "cache"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _make_inputs(self) -> int:
        from golden.golden_inputs import make_inputs

        make_inputs(self.folder)
        return 0

    def _train(self, tree: Path, kill: Kill | None) -> int:
        """In a child: run to the end or to ``kill``."""
        os.chdir(self.folder)
        sys.path.insert(0, str(tree / "src"))
        module, function = _entry(tree)
        package = importlib.util.find_spec(module.partition(".")[0])
        assert package is not None
        assert Path(str(package.origin)).is_relative_to(tree), f"{package.origin} is not of {tree}"
        if kill is not None:
            if kill.unit_by_unit:
                _let_time_fly()
            sys.addaudithook(_killing(kill))
        main: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
        return main(["train", "--config", "golden.yaml", "--resume", "auto"])

    def _fork(self, act: Callable[[], int]) -> int:
        """Return the exit status of ``act`` in a child; that of a signal is negative."""
        self._output.write_bytes(b"")
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            _be_the_child(act, self._output)
        process = os.pidfd_open(child)
        has_ended = select.select([process], [], [], _PATIENCE)[0]
        if not has_ended:
            os.kill(child, signal.SIGKILL)
        os.close(process)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if not has_ended:
            raise RunError(f"a run has taken more than {_PATIENCE:.0f} s")
        return status

    def _require(self, expected: int, status: int, what: str) -> None:
        if status != expected:
            output = self._output.read_text(encoding="utf-8", errors="replace")
            raise RunError(f"{what}: exit status {status}, not {expected}\n{output[-3000:]}")


def _entry(tree: Path) -> tuple[str, str]:
    """Return module and function behind the command ``plora-cl``."""
    project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["plora-cl"].partition(":")
    return module, function


def _be_the_child(act: Callable[[], int], output: Path) -> NoReturn:
    status = 1
    try:
        with output.open("ab") as file:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", buffering=1) for n in (1, 2))
        status = act()
    except BaseException:  # noqa: BLE001 - shown by the parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _let_time_fly() -> None:
    """Make each look at the clock find it much later."""
    seconds = itertools.count(step=_LEAP)
    vars(time)["monotonic"] = lambda: next(seconds)


def _killing(kill: Kill) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that ends this process as ``kill`` says."""
    found = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal found
        if event != "os.rename":
            return
        source, target = (Path(os.fsdecode(name)) for name in arguments[:2])
        if not fnmatch.fnmatch(target.name, kill.file):
            return
        cursor = _cursor(source) if kill.phase is not None else {"task": None, "phase": None}
        position = cursor["task"], cursor["phase"]
        print(f"commit of {target.name}, {position}", file=sys.stderr)
        found += position == (kill.task, kill.phase)
        if found == kill.nth:
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


def _cursor(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint says that runs next; see docs/checkpoint-format.md."""
    data = checkpoint.read_bytes()
    words = data[-_SEAL:].split()
    offset, length = int(words[4]), int(words[5])
    cursor: dict[str, Any] = json.loads(data[offset : offset + length])["cursor"]
    return cursor
