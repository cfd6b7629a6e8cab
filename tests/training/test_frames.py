"""Tasks passed as frames are learned, recorded by their content, and asked for again on resume."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from datasets import ClassLabel, Dataset

import plora_cl
from plora_cl.data.sources import frames
from plora_cl.errors import (
    CheckpointNotFoundError,
    DataError,
    IncompatibleCheckpointError,
    SettingsError,
)
from training.going_on import Listener, cut

Rows = list[dict[str, str]]


def read(folder: str) -> dict[str, Any]:
    """Return a task of the settings as data."""
    found: dict[str, Any] = {"name": Path(folder).name}
    for split in ("train", "validation", "test"):
        text = Path(folder, f"{split}.jsonl").read_text()
        found[split] = [json.loads(line) for line in text.splitlines()]
    return found


def as_frames(task: dict[str, Any], make: Callable[[Rows], Any]) -> dict[str, Any]:
    return {key: value if key == "name" else make(value) for key, value in task.items()}


def labelled(rows: Rows) -> Dataset:
    names = sorted({row["label"] for row in rows})
    return Dataset.from_list(rows).cast_column("label", ClassLabel(names=names))


KINDS: dict[str, Callable[[Rows], Any]] = {
    "pandas": pd.DataFrame,
    "categories": lambda rows: pd.DataFrame(rows).astype({"label": "category"}),
    "datasets": Dataset.from_list,
    "class labels": labelled,
    "records": list,
}


@pytest.fixture
def of_folders(settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Return settings of one run over the first two tasks, in folders."""
    place = {"experiment_dir": str(tmp_path / "folders"), "epochs": 1}
    return {**settings, **place, "tasks": settings["tasks"][:2]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_over_frames_is_that_over_files(
    kind: str, of_folders: dict[str, Any], tmp_path: Path
) -> None:
    tasks = [as_frames(read(folder), KINDS[kind]) for folder in of_folders["tasks"]]
    expected = plora_cl.CLTrainer(**of_folders).train_sequence()
    place = {"experiment_dir": str(tmp_path / "frames"), "tasks": tasks}
    found = plora_cl.CLTrainer(**{**of_folders, **place}).train_sequence()
    assert found["accuracy_matrix"] == expected["accuracy_matrix"]
    assert found["by_class"] == expected["by_class"]
    for mine, theirs in zip(found["identity"]["data"], expected["identity"]["data"], strict=True):
        assert {**mine, "source": ""} == {**theirs, "source": ""}


@pytest.fixture
def stopped_run(settings: dict[str, Any], tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Return a run over frames that was stopped, and its tasks; another process has none."""
    tasks = [as_frames(read(folder), pd.DataFrame) for folder in settings["tasks"]]
    folder = cut({**settings, "tasks": tasks}, tmp_path / "stopped")
    return folder, tasks


def test_the_record_names_the_data_by_their_digest(
    stopped_run: tuple[Path, list[dict[str, Any]]],
) -> None:
    folder, _ = stopped_run
    recorded = yaml.safe_load((folder / "config.yaml").read_text())["tasks"]
    assert [entry["name"] for entry in recorded] == ["animals", "weather", "food"]
    assert all(len(entry["frames"]) == 64 for entry in recorded)


def test_resuming_from_the_folder_says_what_to_pass_again(
    stopped_run: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = stopped_run
    monkeypatch.setattr(frames, "_given", {})  # as in another process
    trainer = plora_cl.CLTrainer.from_experiment(folder)
    with pytest.raises(DataError, match="task 'animals': its texts were passed by a program") as e:
        trainer.train_sequence(resume=True)
    assert "from_experiment(FOLDER, tasks=[{'name': 'animals', 'train': ..., 'test': ...}" in str(
        e.value
    )
    config = ["--config", str(folder / "config.yaml"), "--resume"]
    program = "import sys; from plora_cl.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "train", *config],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert all(line.startswith("Error: task '") for line in done.stderr.splitlines())
    assert "pass them again" in done.stderr


def test_a_run_resumes_to_the_bit_with_the_data_passed_again(
    stopped_run: tuple[Path, list[dict[str, Any]]],
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder, tasks = stopped_run
    monkeypatch.setattr(frames, "_given", {})
    moved = Path(shutil.move(folder, tmp_path / "moved"))
    trainer = plora_cl.CLTrainer.from_experiment(moved, tasks=tasks)
    assert trainer.folder == moved
    found = trainer.train_sequence(resume=True)
    expected = json.loads((whole / "results" / "final_results.json").read_text())
    for key in ("accuracy_matrix", "f1_matrix", "by_class", "untrained_accuracy", "trajectory"):
        assert found[key] == expected[key]
    logs = [(path / "results" / "run_log.jsonl").read_bytes() for path in (moved, whole)]
    assert logs[0] == logs[1]


def test_other_data_are_refused_as_a_change(
    stopped_run: tuple[Path, list[dict[str, Any]]],
) -> None:
    folder, tasks = stopped_run
    tasks[2]["train"] = tasks[2]["train"].iloc[:-1]
    trainer = plora_cl.CLTrainer.from_experiment(folder, tasks=tasks)
    with pytest.raises(
        IncompatibleCheckpointError, match=r"tasks\[2\].train: \w+ in the checkpoint"
    ):
        trainer.train_sequence(resume=True)


def test_data_that_change_after_the_settings_are_refused(of_folders: dict[str, Any]) -> None:
    task = as_frames(read(of_folders["tasks"][0]), pd.DataFrame)
    trainer = plora_cl.CLTrainer(**{**of_folders, "tasks": [task]})
    task["train"].loc[0, "text"] = "something else"
    with pytest.raises(DataError, match="task 'animals': its data changed after the settings"):
        trainer.train_sequence()


GOOD = [{"text": "a b", "label": "x"}, {"text": "c d", "label": "y"}]


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ({"train": GOOD, "test": GOOD}, "needs a name, found None"),
        ({"name": "t", "train": GOOD}, "the task 't' has no test; expected a pandas.DataFrame"),
        ({"name": "t", "train": 3, "test": GOOD}, "train of the task 't' is a int; expected"),
        ({"name": "t", "train": GOOD, "test": GOOD, "lable_column": "y"}, "did you mean label_c"),
    ],
)
def test_an_entry_that_cannot_be_read_is_a_mistake_in_the_settings(
    task: dict[str, Any], text: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        plora_cl.load_settings(tasks=[task])
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("train", "text"),
    [
        (pd.DataFrame({"body": ["a"], "label": ["x"]}), "no column 'text'; it has body, label"),
        (pd.DataFrame({"text": ["a", "b"], "label": ["x", None]}), r"t\[train\]:2: empty label"),
        (pd.DataFrame({"text": ["a", None], "label": [1, 2]}), r"t\[train\]:2: empty text"),
        ([{"text": "a", "label": 1.5}], r"t\[train\]:1: label 1.5 is a float"),
        (Dataset.from_list([{"text": "a", "kind": "x"}]), "no column 'label'; it has text, kind"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(train: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        plora_cl.load_settings(tasks=[{"name": "t", "train": train, "test": GOOD}])


def test_whole_numbers_and_other_columns_are_labels_and_texts(
    of_folders: dict[str, Any], tmp_path: Path
) -> None:
    frame = pd.DataFrame({"a": ["cat", "dog"] * 9, "b": ["meow", "bark"] * 9, "n": [10, 9] * 9})
    task = {"name": "t", "train": frame, "test": frame, "text_column": ["a", "b"]}
    settings = {**of_folders, "tasks": [{**task, "label_column": "n"}]}
    results = plora_cl.CLTrainer(**settings).train_sequence()
    assert results["tasks"][0]["classes"] == ["9", "10"]


def test_progress_is_shown_where_a_program_asks_for_it(
    of_folders: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    plora_cl.CLTrainer(**of_folders).train_sequence()
    assert "Task 1 of 2" not in capsys.readouterr().out
    plora_cl.CLTrainer(**of_folders, progress=True).train_sequence(overwrite=True)
    assert "Task 1 of 2: animals" in capsys.readouterr().out
    listener = Listener()
    trainer = plora_cl.CLTrainer(**of_folders, progress=True, reporter=listener)
    trainer.train_sequence(overwrite=True)
    assert "Task 1 of 2" not in capsys.readouterr().out
    assert listener.messages


def test_a_folder_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="has no checkpoint to resume from"):
        plora_cl.CLTrainer.from_experiment(tmp_path)


def test_the_settings_of_an_experiment_are_those_it_was_begun_with(stopped: Path) -> None:
    trainer = plora_cl.CLTrainer.from_experiment(stopped)
    recorded = yaml.safe_load((stopped / "config.yaml").read_text())
    assert trainer.settings.model_dump(mode="json") == {
        **recorded,
        **{name: trainer.settings.model_dump(mode="json")[name] for name in ("experiment_dir",)},
    }
