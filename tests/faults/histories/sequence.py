"""Sequences of actions on real experiments, each step held to the model."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from faults.histories import reading
from faults.histories.model import (
    broken_promises,
    is_refused,
    settings_of,
)
from faults.histories.references import Bench
from faults.histories.tools import Tools
from faults.histories.training import FINISHED, Training

Action = tuple[str, dict[str, Any]]
"""Name of a method of `World` and its arguments, all plain values."""


class World(Training, Tools):
    """The experiments of one sequence; every action checks what has to hold after it."""

    def do(self, action: Action) -> None:
        """Do one action, then check every promise."""
        name, arguments = action
        getattr(self, name)(**arguments)
        for experiment in self.experiments:
            for (name, _), phase in broken_promises(experiment, self.known).items():
                raise AssertionError(
                    f"{experiment.name}: {name} was announced as saved in phase {phase} and is not "
                    "there whole"
                )

    def finish(self) -> None:
        """Let every experiment end, whatever it takes, and hold each to its reference."""
        for turn in range(len(self.experiments)):
            self.switch(turn)
            me = self.here
            me.wanted |= {"checkpoint_disk_budget": None}
            newest = reading.newest_usable(me.folder)
            if newest is None and me.names():
                for path in reading.pinned(me.folder):
                    self.tool("unpin", str(path))
                me.pinned = set()
                outcome = self.train("overwrite")
            else:
                if newest is not None:
                    assert newest.manifest is not None
                    then = settings_of(self.known.histories[newest.sha256])
                    if is_refused(then, me.wanted, newest.manifest["cursor"], accept=True):
                        me.wanted |= then
                outcome = self.train("auto", accept=True)
                if outcome.status == 2 and not me.config_is_ours:
                    outcome = self.train("auto", accept=True)
            assert outcome.status == FINISHED, outcome
            self.do(("look", {}))
            self.do(("gc", {}))


def play(bench: Bench, root: Path, variant: str, actions: Iterable[Action]) -> None:
    """Do ``actions`` and let all experiments end; every check is an assertion."""
    shutil.rmtree(root, ignore_errors=True)
    world = World(bench, root, variant)
    try:
        for action in actions:
            world.do(action)
        world.finish()
    finally:
        shutil.rmtree(root, ignore_errors=True)
