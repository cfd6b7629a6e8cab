"""``plora-cl evaluate`` measures on new texts what a run learned."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import plora_cl
import tiny
from folders.conftest import Answered
from plora_cl.errors import DataError
from plora_cl.inference.evaluation import evaluate


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Return the test split of ``animals``, whose folder is otherwise gone."""
    tiny.make_task(tmp_path / "animals", tiny.TOPICS["animals"], train=40, test=20)
    return tmp_path / "animals" / "test.jsonl"


def rows(split: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in split.read_text().splitlines()]


def test_the_test_split_scores_what_the_run_published(
    folder: Path, split: Path, call: Answered
) -> None:
    found = call.json("evaluate", folder, split, "--task", "animals", "--device", "cpu")
    results = json.loads((folder / "results" / "final_results.json").read_text())
    assert found["accuracy"] == results["accuracy_matrix"][-1][0]
    assert found["f1"] == results["f1_matrix"][-1][0]
    assert found["by_class"] == results["by_class"]["animals"]
    assert found["texts"] == 20


def test_every_format_and_any_columns_give_the_same_scores(
    folder: Path, split: Path, tmp_path: Path, call: Answered
) -> None:
    found = rows(split)
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["body", "kind"])
        writer.writerows([row["text"], row["label"]] for row in found)
    columns = {name: [row[key] for row in found] for name, key in (("b", "text"), ("k", "label"))}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    expected = call.json("evaluate", folder, split, "--task", "animals")
    for path, names in ((tmp_path / "a.csv", ("body", "kind")), (tmp_path / "a.parquet", "bk")):
        flags = ["--text-column", names[0], "--label-column", names[1]]
        shown = call.json("evaluate", folder, path, "--task", "animals", *flags)
        assert {**shown, "file": ""} == {**expected, "file": ""}


def test_an_earlier_checkpoint_can_be_measured(folder: Path, split: Path, call: Answered) -> None:
    earlier = min((folder / "checkpoints").glob("*.pt"), key=lambda path: path.name)
    for name in (earlier.name, earlier):
        found = call.json("evaluate", folder, split, "--task", "animals", "--checkpoint", name)
        assert found["checkpoint"] == earlier.name


def test_the_table_names_a_class_without_texts(
    folder: Path, tmp_path: Path, call: Answered
) -> None:
    path = tmp_path / "cats.jsonl"
    path.write_text('{"text": "the cat purr", "label": "cat"}\n')
    assert call("evaluate", folder, path, "--task", "animals") == 0
    assert "Note: no text has the class dog; macro-F1 takes its F1 as 0" in call.out


def test_unknown_labels_are_an_error_that_names_them_before_torch_is_loaded(
    folder: Path, split: Path, loaded_by: Callable[..., tuple[int, str, set[str]]], call: Answered
) -> None:
    with split.open("a") as file:
        file.write('{"text": "moo", "label": "cow"}\n{"text": "Moo", "label": "cow"}\n')
        file.write('{"text": "oink", "label": "pig"}\n')
    assert call("evaluate", folder, split, "--task", "animals") == 2
    assert (
        "no class of the task 'animals' is called 'cow' (2 of the texts), 'pig' (1 of the texts); "
        "its classes are 'cat', 'dog'"
    ) in call.error
    code, _, heavy = loaded_by("evaluate", folder, split, "--task", "animals")
    assert (code, heavy & {"torch", "transformers"}) == (2, set())


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["run", "test.jsonl", "--task", "animal"], "did you mean 'animals'? it has animals, wea"),
        (["run", "no.csv", "--task", "animals"], "no.csv: no such file"),
        (["run", "test.txt", "--task", "animals"], "expected a file that ends in .jsonl, .csv"),
        (["run", "empty.jsonl", "--task", "animals"], "empty.jsonl: there is no text in it"),
        (["no", "test.jsonl", "--task", "animals"], "no is no experiment"),
        (["run", "test.jsonl"], "the following arguments are required: --task"),
        (["run", "test.jsonl", "--task", "animals", "--batch-size", "0"], "expected at least 1"),
        (
            ["run", "test.jsonl", "--task", "animals", "--checkpoint", "checkpoint_task9"],
            "is not the name of a checkpoint",
        ),
    ],
)
def test_a_mistake_is_one_line_at_once(
    argv: list[str],
    text: str,
    folder: Path,
    split: Path,
    call: Answered,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(split.parent)
    Path("run").symlink_to(folder)
    Path("empty.jsonl").touch()
    start = time.monotonic()
    assert call("evaluate", *argv) == 2
    assert text in call.error
    assert time.monotonic() - start < 2


def test_a_program_is_told_of_unknown_labels_too(folder: Path) -> None:
    experiment = plora_cl.load_experiment(folder, device="cpu")
    with pytest.raises(DataError, match="'cow'"):
        evaluate(experiment, ["moo"], ["cow"], "animals")
    with pytest.raises(DataError, match="0 texts and 0 labels"):
        evaluate(experiment, [], [], "animals")
