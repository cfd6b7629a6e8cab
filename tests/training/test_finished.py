"""Runs that have nothing left to learn, and what their results say of how they came about."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from plora_cl.checkpoint.store.branches import line_of
from plora_cl.checkpoint.store.output_files import retire_results
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.cli.train.command import main
from plora_cl.config.precedence import validate
from plora_cl.config.schema import identity
from plora_cl.errors import IncompatibleCheckpointError
from training.going_on import DONE_0, Listener, cut, events, train
from training.test_rewinds import go_on


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def results(experiment: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (experiment / "results" / "final_results.json").read_text(encoding="utf-8")
    )
    return found


def without_times(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "wall_clock_seconds"}


@pytest.mark.parametrize("accept", [False, True])
def test_results_are_shown_again_on_another_machine(
    settings: dict[str, Any], finished: Path, accept: bool
) -> None:
    before = results(finished)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        _, listener = train(settings, finished.parent, accept=accept)
    finally:
        torch.set_num_threads(threads)
    assert listener.changes("trajectory-changing") == {"environment.threads"}
    assert any(line.startswith("Nothing is left to learn") for line in listener.messages)
    assert any(line.endswith("nothing to train") for line in listener.messages)
    assert not any("Resuming from" in line for line in listener.messages)
    assert without_times(results(finished)) == without_times(before)
    assert before["trajectory"]["history"] == []


@pytest.mark.parametrize("accept", [False, True])
def test_a_finished_run_is_not_shown_with_settings_that_did_not_make_it(
    settings: dict[str, Any], finished: Path, accept: bool
) -> None:
    files = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(IncompatibleCheckpointError, match="nothing would be computed") as caught:
        train(settings, finished.parent, accept=accept, learning_rate=0.02)
    assert "learning_rate: 0.01 in the checkpoint, now 0.02" in str(caught.value)
    earlier = line_of(CheckpointStore(finished / "checkpoints")).entries[-2].name
    command = f"plora-cl checkpoints fork {finished}@{earlier} NEW-FOLDER --set learning_rate=0.02"
    assert f"fork an earlier checkpoint: {command}" in str(caught.value)
    assert "\n" not in str(caught.value)
    for path, content in files.items():
        assert path.name == ".lock" or path.read_bytes() == content


def test_results_say_which_settings_held_from_which_step(
    settings: dict[str, Any], here: Path
) -> None:
    listener: Listener
    experiment, listener = train(settings, here, accept=True, learning_rate=0.02)
    found = results(experiment)
    assert found["identity"]["learning_rate"] == 0.02
    (departure,) = found["trajectory"]["history"]
    assert (departure["step"], departure["task"]) == (12, 1)
    assert [(c["key"], c["before"], c["now"]) for c in departure["changes"]] == [
        ("learning_rate", "0.01", "0.02")
    ]
    assert "Note: changed after step 12: learning_rate 0.01 -> 0.02" in listener.messages
    changed = {**settings, "experiment_dir": str(here), "learning_rate": 0.02}
    assert identity(validate(changed)).items() <= found["identity"].items()
    again, _ = train(changed, here)
    assert without_times(results(again)) == without_times(found)


def test_a_change_that_is_accepted_lasts_although_the_run_is_killed_before_a_step(
    settings: dict[str, Any], here: Path
) -> None:
    go_on(settings, here, steps=1, accept=True, learning_rate=0.02)
    listener = go_on({**settings, "learning_rate": 0.02}, here, steps=1)
    assert not listener.changes("trajectory-changing")


def test_a_stopped_run_that_is_finished_elsewhere_has_one_machine_on_record(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    cut(settings, tmp_path)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        experiment, _ = train(settings, tmp_path, accept=True)
    finally:
        torch.set_num_threads(threads)
    (departure,) = results(experiment)["trajectory"]["history"]
    assert [change["key"] for change in departure["changes"]] == ["environment.threads"]
    assert not list((experiment / "checkpoints").glob("*.branch*"))


@pytest.mark.fault
def test_a_finished_run_says_that_its_log_was_lost(
    settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment, _ = train({**settings, "epochs": 1}, tmp_path)
    train({**settings, "epochs": 1}, tmp_path)
    assert not caplog.records
    log = experiment / "results" / "run_log.jsonl"
    log.write_bytes(log.read_bytes()[:100])
    train({**settings, "epochs": 1}, tmp_path)
    assert f"{log}: the checkpoint knows of" in caplog.text
    assert len(log.read_bytes()) == 100


def test_a_finished_run_that_goes_back_has_no_results_until_it_has_its_own(
    settings: dict[str, Any], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results(finished)
    source = str(finished / "checkpoints" / DONE_0)
    config = finished.parent / "c.yaml"
    config.write_text(yaml.safe_dump({**settings, "learning_rate": 0.02}), encoding="utf-8")
    place = ["--config", str(config), "--experiment-dir", str(finished.parent)]
    assert main([*place, "--resume", source]) == 2
    assert results(finished) == before
    other = {**settings, "learning_rate": 0.02}
    go_on(other, finished.parent, steps=1, resume=source, accept=True)
    assert not (finished / "results" / "final_results.json").exists()
    aside = finished / "results" / "final_results.json.branch0"
    assert json.loads(aside.read_text(encoding="utf-8")) == before
    capsys.readouterr()
    assert main(["--config", str(finished / "config.yaml"), "--resume", "auto"]) == 0
    shown = capsys.readouterr().out
    assert "trajectory-changing" not in shown
    assert "nothing to train" not in shown
    after = results(finished)
    assert after["identity"]["learning_rate"] == 0.02
    assert after["trajectory"]["id"] != before["trajectory"]["id"]
    assert [r["step"] for r in events(finished, "step")] == list(range(1, 31))
    assert json.loads(aside.read_text(encoding="utf-8")) == before


def test_an_abandoned_end_that_is_shown_again_is_what_the_folder_goes_on_with(
    settings: dict[str, Any], finished: Path
) -> None:
    store = CheckpointStore(finished / "checkpoints")
    end, before = store.entries()[-1].path, results(finished)
    keeping = {**settings, "checkpoint_every": 1, "keep_last_n_checkpoints": 3}
    other = {**keeping, "learning_rate": 0.02}
    go_on(other, finished.parent, steps=8, resume=str(end.with_name(DONE_0)), accept=True)
    live = {entry.path.name: entry.path.read_bytes() for entry in store.entries()}
    assert len(live) > 3
    train(keeping, finished.parent, resume=f"{end}.branch0")
    head = line_of(store).head
    assert head is not None
    assert head.branch == results(finished)["trajectory"]["branch"] == 2
    assert head.id == before["trajectory"]["id"]
    assert (finished / "config.yaml").read_bytes().startswith(b"# Settings of branch 2;")
    assert results(finished)["accuracy_matrix"] == before["accuracy_matrix"]
    for name, content in live.items():
        assert end.with_name(f"{name}.branch1").read_bytes() == content
    files = sorted(path.name for path in store.directory.iterdir())
    train(keeping, finished.parent)
    assert sorted(path.name for path in store.directory.iterdir()) == files
    assert line_of(store).head == head


@pytest.mark.parametrize(
    ("content", "branch", "name"),
    [
        (b"{torn", 1, "final_results.json"),
        (b"[]", 1, "final_results.json"),
        (b'{"trajectory": {}}', 1, "final_results.json"),
        (b"{}", 0, "final_results.json"),
        (b"{}", 1, "final_results.json.branch0"),  # older than branches
        (b'{"trajectory": null}', 1, "final_results.json.branch0"),
        (b'{"trajectory": {"id": null, "branch": 2, "history": []}}', 2, "final_results.json"),
    ],
)
def test_results_are_told_from_those_of_other_branches(
    tmp_path: Path, content: bytes, branch: int, name: str
) -> None:
    (tmp_path / "final_results.json").write_bytes(content)
    retire_results(tmp_path, branch=branch)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    retire_results(tmp_path / "nowhere", branch=1)


@pytest.mark.fault
def test_a_finished_run_keeps_its_log_though_a_branch_of_it_was_killed_before_its_first_save(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {**settings, "epochs": 1}
    experiment, _ = train(here, tmp_path)
    log = experiment / "results" / "run_log.jsonl"
    whole = log.read_bytes()
    first = str(CheckpointStore(experiment / "checkpoints").entries()[0].path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "commit", killed)
        changed = {**here, "learning_rate": 0.02}
        with pytest.raises(KeyboardInterrupt):
            train(changed, tmp_path, resume=first, accept=True)
    assert log.read_bytes() != whole
    train(here, tmp_path)
    assert log.read_bytes() == whole
    log.write_bytes(whole + b'{"event": "step"}\n')
    train(here, tmp_path)
    assert log.read_bytes() == whole
