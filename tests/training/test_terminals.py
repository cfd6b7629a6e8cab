"""Terminals that close, pipes nobody reads, logs on full disks: real ones, under real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from plora_cl.checkpoint.store.store import CheckpointStore
from training.evidence import evidence
from training.going_on import train
from warm import Interpreter

ENDING = {"terminal closed": 129, "shell closed": 129}
GOING_ON = ("terminal closed, nohup", "pipe closed", "disk full", "no streams")

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def ended(
    settings: dict[str, Any],
    whole: Path,
    tmp_path_factory: pytest.TempPathFactory,
    warm: Interpreter,
) -> dict[str, tuple[Path, int, str]]:
    """Return for each scenario the folder, the exit status and what was read of the output."""
    assert whole.is_dir()  # texts are tokenised
    folders = {name: tmp_path_factory.mktemp("run") for name in (*ENDING, *GOING_ON)}
    requests = []
    for scenario, folder in folders.items():
        config = folder / "settings.yaml"
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        argv = ["train", "--config", str(config), "--experiment-dir", str(folder)]
        log = folder / "run" / "results" / "run_log.jsonl"
        requests.append(json.dumps({"scenario": scenario, "argv": argv, "log": str(log)}))
    script = Path(__file__).with_name("terminal_runs.py").read_text(encoding="utf-8")
    server = warm.run(script, given="\n".join(requests))
    assert server.returncode == 0, server.stderr
    answers = map(json.loads, server.stdout.splitlines())
    return {
        name: (folder, *answer)
        for (name, folder), answer in zip(folders.items(), answers, strict=True)
    }


@pytest.mark.parametrize(("scenario", "code"), ENDING.items())
def test_a_run_whose_terminal_closes_saves_and_goes_on_exactly(
    ended: dict[str, tuple[Path, int, str]],
    settings: dict[str, Any],
    whole: Path,
    scenario: str,
    code: int,
) -> None:
    folder, status, _ = ended[scenario]
    assert status == code
    store = CheckpointStore(folder / "run" / "checkpoints")
    last = store.entries()[-1]
    log = (folder / "run" / "results" / "run_log.jsonl").read_text().splitlines()
    steps = [r["step"] for r in map(json.loads, log) if r["event"] == "step"]
    assert store.manifest(last).cursor["step"] == steps[-1]  # not a step is lost
    train(settings, folder)
    assert evidence(folder / "run") == evidence(whole)


@pytest.mark.parametrize("scenario", GOING_ON)
def test_a_run_that_cannot_show_anything_any_more_learns_all_the_same(
    ended: dict[str, tuple[Path, int, str]], whole: Path, scenario: str
) -> None:
    folder, status, _ = ended[scenario]
    assert status == 0
    assert evidence(folder / "run") == evidence(whole)


def test_the_cursor_of_a_terminal_is_visible_whenever_a_run_dies(
    ended: dict[str, tuple[Path, int, str]],
) -> None:
    for scenario in ENDING:
        shown = ended[scenario][2]
        assert "\x1b[" in shown  # a bar was drawn
        assert shown.rfind("\x1b[?25l") <= shown.rfind("\x1b[?25h")
