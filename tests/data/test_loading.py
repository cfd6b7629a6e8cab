from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from data.samples import Rows, WriteTask, build_tokenizer, numbered
from plora_cl.data.loading import load_tasks
from plora_cl.data.task import Task
from plora_cl.errors import DataError
from plora_cl.units import Unit

Load = Callable[..., list[Task]]


def silent(unit: Unit) -> None:
    """Show nothing."""


@pytest.fixture
def load(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> Load:
    def load(*entries: object, **settings: object) -> list[Task]:
        defaults: dict[str, object] = {
            "max_length": 16,
            "max_train_examples": None,
            "max_eval_examples": None,
            "seed": 0,
            "cache_dir": tmp_path / "cache",
            "progress": silent,
        }
        return load_tasks(entries, tokenizer, **{**defaults, **settings})  # type: ignore[arg-type]

    return load


def test_a_folder_becomes_a_task_with_the_tokens_of_its_texts(
    load: Load, write_task: WriteTask, animals: dict[str, Rows], tokenizer: PreTrainedTokenizerBase
) -> None:
    (task,) = load(write_task(animals))
    assert (task.index, task.name, task.classes) == (0, "animals", ("cat", "dog"))
    assert [len(split) for split in (task.train, task.validation, task.test)] == [40, 10, 12]
    for name, split in (("train", task.train), ("test", task.test)):
        for row in (0, 5, len(split) - 1):
            text, label = animals[name][row]
            batch = split.batch(np.array([row]))
            expected = tokenizer(text, truncation=True, max_length=16)["input_ids"]
            assert batch.input_ids[0].tolist() == expected
            assert task.classes[int(batch.labels[0])] == label


def test_long_texts_are_cut_and_short_ones_are_not_padded(
    load: Load, write_task: WriteTask, animals: dict[str, Rows], tokenizer: PreTrainedTokenizerBase
) -> None:
    animals["test"] = [("red", "cat"), ("red " * 100, "dog")]
    (task,) = load(write_task(animals), max_length=8)
    assert task.test.lengths.tolist() == [3, 8]
    assert task.test.batch(np.array([1])).input_ids[0, -1] == tokenizer.sep_token_id


def test_the_position_in_the_stream_is_in_every_batch(
    load: Load, write_task: WriteTask, animals: dict[str, Rows]
) -> None:
    tasks = load(write_task(animals), write_task(animals, "birds"))
    assert [task.name for task in tasks] == ["animals", "birds"]
    for index, task in enumerate(tasks):
        assert task.index == index
        for split in (task.train, task.validation, task.test):
            assert split.batch(np.array([0])).task == index


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_same_content_in_another_format_is_the_same_task(
    load: Load, write_task: WriteTask, animals: dict[str, Rows], suffix: str
) -> None:
    (one,) = load(write_task(animals))
    (two,) = load(write_task(animals, "elsewhere", suffix))
    assert one.digest == two.digest
    for left, right in zip(one.train.in_order(7), two.train.in_order(7), strict=True):
        assert torch.equal(left.input_ids, right.input_ids)
        assert torch.equal(left.labels, right.labels)


def test_a_split_knows_its_whole_texts_also_as_a_subset_and_from_the_cache(
    load: Load, write_task: WriteTask
) -> None:
    long = " ".join(["red cat"] * 50)
    train = [(f"{long} \u00e9\n{n}", "ab"[n % 2]) for n in range(40)]
    folder = write_task({"train": train, "validation": train[:4], "test": train[4:9]})
    for _ in range(2):
        (task,) = load(folder, max_train_examples=6)
        texts = task.train.texts()
        assert len(texts) == 6
        assert [dict(train)[text] for text in texts] == [task.classes[c] for c in task.train.labels]
        assert task.test.texts() == [text for text, _ in train[4:9]]
        assert task.train.subset(np.array([3, 1])).texts() == [texts[3], texts[1]]


def test_integer_classes_are_in_numerical_order_and_others_sorted(
    load: Load, write_task: WriteTask, animals: dict[str, Rows]
) -> None:
    numbers: list[tuple[str, str | int]] = [(f"red {n}", n % 12) for n in range(120)]
    for suffix in (".jsonl", ".csv", ".parquet"):
        folder = write_task({"train": numbers, "test": numbers[:24]}, f"n{suffix[1:]}", suffix)
        assert load(folder)[0].classes == tuple(str(n) for n in range(12))
    words = numbered(40, ("b", "a", "10", "9"))
    assert load(write_task({"train": words, "test": words}, "w"))[0].classes == (
        "10",
        "9",
        "a",
        "b",
    )


def test_a_missing_validation_split_is_held_out_for_any_seed_and_order(
    load: Load, write_task: WriteTask
) -> None:
    train, test = numbered(200), numbered(20, start=900)
    (task,) = load(write_task({"train": train, "test": test}))
    assert (len(task.train), len(task.validation)) == (180, 20)
    assert np.bincount(task.validation.labels).tolist() == [10, 10]
    assert not set(_rows(task.train)) & set(_rows(task.validation))
    assert set(_rows(task.train)) | set(_rows(task.validation)) == set(
        _rows(
            load(write_task({"train": train, "validation": test, "test": test}, "given"))[0].train
        )
    )
    (other,) = load(write_task({"train": train[::-1], "test": test}, "reversed"), seed=7)
    assert set(_rows(other.validation)) == set(_rows(task.validation))


def _rows(split: object) -> list[bytes]:
    """The digests of a split's texts: the tokenizer of the tests does not know most numbers."""
    file = split._file  # type: ignore[attr-defined]
    joined = file.text_digests(split._rows)  # type: ignore[attr-defined]
    return [joined[first : first + 16] for first in range(0, len(joined), 16)]


def test_limits_take_stratified_subsets_and_zero_means_all(
    load: Load, write_task: WriteTask, animals: dict[str, Rows]
) -> None:
    folder = write_task(animals)
    (task,) = load(folder, max_train_examples=10, max_eval_examples=4)
    assert [len(split) for split in (task.train, task.validation, task.test)] == [10, 4, 4]
    assert np.bincount(task.train.labels).tolist() == [5, 5]
    for limit in (0, None, 1000):
        (whole,) = load(folder, max_train_examples=limit, max_eval_examples=limit)
        assert [len(s) for s in (whole.train, whole.validation, whole.test)] == [40, 10, 12]


def test_limits_per_class_leave_the_test_split_whole(
    load: Load, write_task: WriteTask, animals: dict[str, Rows]
) -> None:
    limits = {"max_train_examples_per_class": 7, "max_validation_examples_per_class": 2}
    (task,) = load(write_task(animals), **limits)
    assert np.bincount(task.train.labels).tolist() == [7, 7]
    assert np.bincount(task.validation.labels).tolist() == [2, 2]
    assert len(task.test) == 12


def test_a_task_of_some_classes_has_their_rows_only(
    load: Load, write_task: WriteTask, animals: dict[str, Rows]
) -> None:
    four = {
        split: [*rows, *numbered(8, labels=("cow", "ant"), start=1000 * at)]
        for at, (split, rows) in enumerate(animals.items(), start=1)
    }
    folder = write_task(four)
    part, whole = load(
        {"name": "part", "path": folder, "classes": ["dog", "ant"]}, {"path": folder}
    )
    assert part.classes == ("ant", "dog")
    assert [len(split) for split in (part.train, part.validation, part.test)] == [24, 9, 10]
    assert set(part.train.texts()) < set(whole.train.texts())
    assert whole.classes == ("ant", "cat", "cow", "dog")
    with pytest.raises(DataError, match=r"no row has the class 'bee'.*'ant', 'cat', 'cow'"):
        load({"name": "other", "path": folder, "classes": ["dog", "bee"]})


def test_the_seed_chooses_training_subsets_but_not_what_is_measured_on(
    load: Load, write_task: WriteTask, animals: dict[str, Rows]
) -> None:
    folder = write_task(animals)
    limits = {"max_train_examples": 10, "max_eval_examples": 4}
    (one,), (two,) = load(folder, seed=0, **limits), load(folder, seed=1, **limits)
    assert one.train.digest != two.train.digest
    assert one.validation.digest == two.validation.digest
    assert one.test.digest == two.test.digest
    assert load(folder, seed=0, **limits)[0].digest == one.digest


def test_the_task_digest_depends_on_content_alone(
    load: Load,
    write_task: WriteTask,
    animals: dict[str, Rows],
    other_tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    (task,) = load(write_task(animals))
    (elsewhere,) = load(write_task(animals, "elsewhere"), cache_dir=tmp_path / "cache2")
    assert elsewhere.digest == task.digest
    relabelled = dict(animals, test=[(text, "cat") for text, _ in animals["test"]])
    renamed = {
        split: [(text, {"cat": "cow", "dog": "doe"}[str(label)]) for text, label in rows]
        for split, rows in animals.items()
    }
    (changed,) = load(write_task(relabelled, "relabelled"))
    (classes,) = load(write_task(renamed, "renamed"))
    (shorter,) = load(write_task(animals), max_length=6)
    (subset,) = load(write_task(animals), max_train_examples=39)
    (other,) = load_tasks(
        [write_task(animals)],
        other_tokenizer,
        max_length=16,
        max_train_examples=0,
        max_eval_examples=0,
        seed=0,
        cache_dir=tmp_path / "cache",
        progress=silent,
    )
    tasks = (task, changed, classes, shorter, subset, other)
    assert len({each.digest for each in tasks}) == len(tasks)


def test_texts_that_occur_in_several_splits_are_counted_and_reported_once(
    load: Load, write_task: WriteTask, animals: dict[str, Rows], caplog: pytest.LogCaptureFixture
) -> None:
    animals["test"] = [*animals["test"], *animals["train"][:3], animals["validation"][0]]
    folder = write_task(animals)
    with caplog.at_level(logging.WARNING, logger="plora_cl"):
        (task,) = load(folder)
    assert dict(task.duplicates) == {
        "train/validation": 0,
        "train/test": 3,
        "validation/test": 1,
    }
    assert [record.getMessage() for record in caplog.records] == [
        f"task animals: {counted} of 16 test texts also occur in {other}, so that scores on test "
        "say less about new texts; remove them from one of the two"
        for counted, other in ((3, "train"), (1, "validation"))
    ]
    assert load(folder, max_eval_examples=4)[0].duplicates == task.duplicates


def test_progress_reaches_the_number_of_rows(
    load: Load, write_task: WriteTask, animals: dict[str, Rows]
) -> None:
    told: list[Unit] = []
    load(write_task(animals), progress=told.append)
    assert told[-1] == ("tokenising animals", 62, 62)


def test_columns_and_splits_can_be_mapped_and_texts_joined(
    load: Load, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    folder = tmp_path / "mapped"
    folder.mkdir()
    for stem in ("fit", "dev"):
        lines = [
            {"title": "red cat", "body": f"runs {n}", "topic": n % 2, "text": "", "label": None}
            for n in range(20)
        ]
        lines[0]["title"] = None
        (folder / f"{stem}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (task,) = load(
        {
            "name": "topics",
            "path": str(folder),
            "text_column": ["title", "body"],
            "label_column": "topic",
            "splits": {"train": "fit", "test": "dev"},
        }
    )
    assert (task.name, task.classes, len(task.test)) == ("topics", ("0", "1"), 20)
    first, second = (task.test.batch(np.array([row])).input_ids[0].tolist() for row in (0, 1))
    assert first == tokenizer("runs 0")["input_ids"]
    assert second == tokenizer("red cat runs 1")["input_ids"]


def test_a_task_that_is_not_there_is_found_before_another_is_tokenised(
    load: Load, write_task: WriteTask, animals: dict[str, Rows], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        load(write_task(animals), tmp_path / "absent")
    assert not (tmp_path / "cache").exists()


def test_a_tokenizer_that_cannot_make_batches_is_refused(
    load: Load, write_task: WriteTask, animals: dict[str, Rows], tmp_path: Path
) -> None:
    folder = tmp_path / "unpadded"
    folder.mkdir()
    unpadded = build_tokenizer(folder, ["red"])
    unpadded.pad_token = None
    with pytest.raises(DataError, match="no padding token"):
        load_tasks(
            [write_task(animals)],
            unpadded,
            max_length=16,
            max_train_examples=0,
            max_eval_examples=0,
            seed=0,
            cache_dir=tmp_path / "cache",
            progress=silent,
        )
    with pytest.raises(DataError, match=r"max_length is 2, .* set it to 3 at least"):
        load(write_task(animals), max_length=2)
