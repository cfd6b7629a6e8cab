"""A run goes on from any working directory, and wherever its folder has been moved."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from plora_cl.cli.main import main
from plora_cl.cli.train.command import main as train_main
from plora_cl.training.reporting import standing
from training.evidence import evidence
from training.going_on import cut, newest

PLACES = ("model_name", "tasks", "experiment_dir", "cache_dir")


@pytest.fixture
def project(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Return settings with paths relative to a project, which is the working directory."""
    folder = tmp_path / "my project"
    shutil.copytree(settings["model_name"], folder / "encoder")
    for task in settings["tasks"]:
        shutil.copytree(task, folder / "data" / Path(task).name)
    monkeypatch.chdir(folder)
    return {
        **settings,
        "model_name": "encoder",
        "tasks": [f"data/{Path(task).name}" for task in settings["tasks"]],
        "cache_dir": "cache",
    }


def test_what_a_run_records_holds_no_path_that_depends_on_the_working_directory(
    project: dict[str, Any],
) -> None:
    experiment = cut(project, Path("runs"))
    recorded = yaml.safe_load((experiment / "config.yaml").read_text(encoding="utf-8"))
    for found in (recorded, newest(experiment).facts.settings):
        paths = [p for name in PLACES for p in ([found[name]] if name != "tasks" else found[name])]
        assert all(Path(path).is_absolute() for path in paths), paths


def test_the_recorded_settings_go_on_from_another_working_directory(
    project: dict[str, Any],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    experiment = cut(project, Path("runs")).absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert train_main(["--config", str(experiment / "config.yaml"), "--resume", "auto"]) == 0
    assert "Resuming from task 1" in capsys.readouterr().out
    assert list(Path.cwd().iterdir()) == []
    assert evidence(experiment) == evidence(whole)


@pytest.mark.parametrize("resume", ["auto", "path"])
def test_a_stop_while_a_run_loads_says_where_it_stands(
    project: dict[str, Any],
    resume: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    experiment = cut(project, Path("runs")).absolute()
    before = {file: file.read_bytes() for file in experiment.rglob("*.pt")}
    command = f"plora-cl train --config '{experiment / 'config.yaml'}' --resume auto"
    argv = shlex.split(command)[2:]
    if resume == "path":
        argv[-1] = str(max(before))

    def interrupt(_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("plora_cl.cli.train.command.announce", interrupt)
    assert train_main(argv) == 130
    said = capsys.readouterr().out
    stands = standing(newest(experiment).cursor)
    assert f"Nothing new was learned; the run stands at {stands}" in said
    if resume == "auto":
        assert f"\nResume with: {command}\n" in said
    else:  # the command without its path would resume another checkpoint
        assert f"{stands}; start the same command again\n" in said
    assert {file: file.read_bytes() for file in experiment.rglob("*.pt")} == before


def test_the_printed_command_goes_on_from_another_working_directory(
    project: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("settings.yaml").write_text(yaml.safe_dump(project), encoding="utf-8")
    argv = ["--config", "settings.yaml", "--max-time", "0s"]
    assert train_main(argv) == 75  # while texts are tokenised: there is nothing to go on with yet
    assert "start the same command again" in capsys.readouterr().out
    cut(project, Path("others"))  # tokenises
    assert train_main(argv) == 75
    found = re.search(r"Resume with: (.*)", capsys.readouterr().out)
    assert found is not None
    program, *arguments = shlex.split(found[1])
    monkeypatch.chdir(tmp_path)
    assert program == "plora-cl"
    before = set(tmp_path.iterdir())
    assert main([*arguments, "--max-time", "0s"]) == 75
    assert f"{found[0]}\n" in capsys.readouterr().out
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("moved", ["experiment", "project"])
def test_a_folder_that_was_moved_and_renamed_goes_on(
    project: dict[str, Any],
    whole: Path,
    tmp_path: Path,
    moved: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment = cut(project, Path("runs"))
    monkeypatch.chdir(tmp_path)
    if moved == "experiment":
        there = experiment.rename(tmp_path / "renamed")
    else:
        (tmp_path / "my project").rename(tmp_path / "theirs")
        there = tmp_path / "theirs" / "runs" / experiment.name
    assert train_main(["--config", str(there / "config.yaml"), "--resume"]) == 0
    assert evidence(there) == evidence(whole)


def test_a_config_that_was_copied_out_of_its_experiment_means_what_it_says(
    project: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = cut(project, Path("runs")).absolute()
    (tmp_path / "copy").mkdir()
    copy = str(shutil.copy(experiment / "config.yaml", tmp_path / "copy"))
    monkeypatch.chdir(tmp_path)
    assert train_main(["--config", copy]) == 2  # the experiment holds checkpoints already
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["config.yaml"]
