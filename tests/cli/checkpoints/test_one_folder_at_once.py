"""Two processes that fill the same new folder: one does, the other is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli.checkpoints.calls import DEMO, FIRST, LAST, Calls
from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.checkpoint.tools.new_experiment import lineage_of
from plora_cl.checkpoint.tools.verification import verify


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Calls:
    return Calls(capsys)


@pytest.fixture
def bundles(call: Calls, experiment: CheckpointStore) -> list[str]:
    for name, file in ((FIRST, "first.tar"), (LAST, "last.tar")):
        assert call("export", f"{DEMO}@{name}", "--out", file) == 0
    return ["first.tar", "last.tar"]


def test_a_folder_that_somebody_fills_is_refused_and_left_alone(
    call: Calls, bundles: list[str]
) -> None:
    folder = Path("new")
    for argv in (["import", bundles[0], "new"], ["fork", DEMO, "new"]):
        with ExperimentLock.acquire(folder):
            assert call(*argv) == 2
            assert "is in use by" in call.err
            assert [path.name for path in folder.iterdir()] == [".lock"]
        assert not folder.exists()
        assert call(*argv) == 0
        assert not (folder / ".lock").exists()
        folder.rename(f"done by {argv[0]}")


@pytest.mark.fault
def test_of_two_imports_at_once_one_is_whole(bundles: list[str]) -> None:
    for attempt in range(3):
        folder = Path(f"new-{attempt}")
        argv = [sys.executable, "-m", "plora_cl.cli.main", "checkpoints", "import"]
        both = [
            subprocess.Popen([*argv, bundle, str(folder)], stderr=subprocess.DEVNULL)
            for bundle in bundles
        ]
        codes = [process.wait(100) for process in both]
        assert sorted(codes) == [0, 2]
        store = CheckpointStore(folder / "checkpoints")
        (entry,) = store.entries()
        assert entry.path.name == (FIRST, LAST)[codes.index(0)]
        assert verify(store).is_intact
        lineage = lineage_of(folder)
        assert lineage is not None
        assert Path(str(lineage["bundle"])).name == bundles[codes.index(0)]
