"""SIGKILL in place of each change of the disk while a run makes a branch."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.config.precedence import resolve
from training.evidence import evidence
from training.going_on import cut
from training.test_kills import Runs
from training.test_kills import runs as runs  # a fixture
from training.test_rewinds import EARLY


def state_of(experiment: Path) -> frozenset[tuple[str, bytes]]:
    """Return what a resumed run finds, whatever the names of writes that never finished."""
    files = (path for path in experiment.rglob("*") if path.is_file())
    return frozenset(
        (str(path.relative_to(experiment)), path.read_bytes())
        for path in files
        if path.name != ".lock" and not path.name.endswith(".partial")
    )


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(3600)
def test_a_branch_killed_at_each_change_of_the_disk_ends_like_one_that_was_not(
    settings: dict[str, Any], tmp_path: Path, runs: Runs
) -> None:
    output, config = tmp_path / "output.txt", tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({**settings, "async_checkpoint": False}))
    run = ["--config", str(config), "--experiment-dir"]
    shutil.copytree(cut(settings, tmp_path / "begun", after=19).parent, tmp_path / "old")

    def begin(folder: Path, *, kill_at: int | None = None) -> int:
        shutil.copytree(tmp_path / "begun", folder)
        source = str(folder / "run" / "checkpoints" / EARLY)
        argv = [*run, str(folder), "--resume", source, "--accept-changes"]
        return runs.train([*argv, "--learning-rate", "0.02"], output, kill_at=kill_at)

    assert begin(tmp_path / "new") == 0, output.read_text()
    assert runs.train([*run, str(tmp_path / "old"), "--resume", "auto"], output) == 0
    expected = {0.01: evidence(tmp_path / "old" / "run"), 0.02: evidence(tmp_path / "new" / "run")}

    seen: set[frozenset[tuple[str, bytes]]] = set()
    ended: list[float] = []
    for change in range(1000):
        folder = tmp_path / "killed"
        assert begin(folder, kill_at=change) == -signal.SIGKILL, output.read_text()
        experiment = folder / "run"
        log = (experiment / "results" / "run_log.jsonl").read_text()
        has_learned = '"changed"' in log and '"changed"' not in log.splitlines()[-1]
        if state_of(experiment) not in seen:
            seen.add(state_of(experiment))
            argv = ["--config", str(experiment / "config.yaml"), "--resume", "auto"]
            rate = resolve(config=experiment / "config.yaml", resume="auto").settings.learning_rate
            assert runs.train(argv, output) == 0, (change, output.read_text())
            assert evidence(experiment) == expected[rate], change
            ended.append(rate)
            store = CheckpointStore(experiment / "checkpoints")
            assert len(store.retired()) == (3 if rate == 0.02 else 0)
            assert not list(experiment.rglob("*.partial"))
        shutil.rmtree(folder)
        if has_learned:
            break
    assert ended == sorted(ended)
    assert len(ended) > 8
    assert set(ended) == {0.01, 0.02}
