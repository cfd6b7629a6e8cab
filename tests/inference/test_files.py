"""Files of texts: read as streams, written whole, resumed to the byte."""

from __future__ import annotations

import csv
import json
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny
from plora_cl import DataError, Experiment, OutputError, Predictions, load_experiment
from plora_cl.inference.files.job import FileJob, FileProgress
from plora_cl.inference.files.journal import Journal, journal_path
from plora_cl.inference.files.outputs import jsonl_writer
from plora_cl.inference.files.rows import InputFile, InputRow, TextColumns
from plora_cl.inference.predictions import Prediction

IDENTITY = {"checkpoint": "a", "task": "inferred", "text columns": ["text"]}


@pytest.fixture(scope="module")
def experiment(folder: Path) -> Experiment:
    return load_experiment(folder, device="cpu")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    found = []
    for task in tiny.make_tasks(tmp_path_factory.mktemp("tasks")):
        lines = (task / "test.jsonl").read_text("utf-8").splitlines()
        found += [json.loads(line)["text"] for line in lines]
    return found


@pytest.fixture
def source(texts: list[str], tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return path


def job(experiment: Any, *, task: str | None = None, **options: Any) -> FileJob:
    settings = {"batch_size": 1, "progress": lambda _: None, **options}
    return FileJob(experiment, task=task, **settings)  # blocks of 16 rows


def read(path: Path) -> InputFile:
    return InputFile(path, path.suffix, TextColumns())


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return [{**row, "probabilities": dict(row["probabilities"])} for row in found]
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_as(suffix: str, texts: Sequence[str], folder: Path) -> Path:
    path = folder / f"input{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), path)
    elif suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "text"), *enumerate(texts)])
    else:
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        path.write_text("".join(lines), "utf-8")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_file_of_any_type_is_predicted_as_its_texts_are(
    experiment: Experiment, texts: list[str], suffix: str, tmp_path: Path
) -> None:
    output = tmp_path / f"out{suffix}"
    told: list[FileProgress] = []
    whole = job(experiment, batch_size=32, progress=told.append)
    outcome = whole.to_file(
        read(write_as(suffix, texts, tmp_path)), output, IDENTITY, overwrite=False
    )
    expected = [
        {"row": number, **one.to_plain(), "problem": None}
        for number, one in enumerate(experiment.predict(texts, batch_size=32), start=1)
    ]
    if suffix == ".csv":
        with output.open(encoding="utf-8", newline="") as file:
            for line, row in zip(csv.DictReader(file), expected, strict=True):
                assert line["row"] == str(row["row"])
                assert (line["label"], line["task"]) == (row["label"], row["task"])
                assert float(line["probability"]) == row["probability"]
                assert json.loads(line["probabilities"]) == row["probabilities"]
                assert line["abstained"] == str(row["abstained"]).lower()
    else:
        assert rows(output) == expected
    assert (outcome.rows, outcome.without) == (60, 0)
    assert outcome.doubtful == sum(row["abstained"] is True for row in expected) > 0
    assert told[-1] == FileProgress(60, 0, 1.0)
    assert not journal_path(output).exists()


class Counting:
    """An experiment that counts what it predicts, and is interrupted before a text."""

    def __init__(self, experiment: Experiment, *, stop: int | None = None) -> None:
        self._experiment, self._stop, self.predicted = experiment, stop, 0

    def predict(self, texts: list[str], task: str | None, *, batch_size: int) -> Predictions:
        if self._stop is not None and self.predicted >= self._stop:
            raise KeyboardInterrupt
        self.predicted += len(texts)
        return self._experiment.predict(texts, task, batch_size=batch_size)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_an_interrupted_output_ends_with_the_same_bytes(
    experiment: Experiment, source: Path, suffix: str, tmp_path: Path
) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    job(experiment).to_file(read(source), whole, IDENTITY, overwrite=False)
    stopped = Counting(experiment, stop=32)
    with pytest.raises(KeyboardInterrupt):
        job(stopped).to_file(read(source), cut, IDENTITY, overwrite=False)
    assert not cut.exists()
    rest = Counting(experiment)
    job(rest).to_file(read(source), cut, IDENTITY, overwrite=False)
    assert cut.read_bytes() == whole.read_bytes()
    assert rest.predicted == 60 - 32
    assert not journal_path(cut).exists()


def test_a_journal_that_is_cut_anywhere_continues_after_its_last_whole_block(
    experiment: Experiment, source: Path, tmp_path: Path
) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    job(experiment).to_file(read(source), whole, IDENTITY, overwrite=False)
    with pytest.raises(KeyboardInterrupt):
        job(Counting(experiment, stop=48)).to_file(read(source), output, IDENTITY, overwrite=False)
    journal = journal_path(output).read_bytes()
    ends = [place + 1 for place, byte in enumerate(journal) if byte == ord("\n")]
    cuts = {0, 1, ends[0] - 1, ends[0], ends[1] - 1, ends[1], ends[1] + 1, ends[2], len(journal)}
    for cut in sorted(cuts):
        journal_path(output).write_bytes(journal[:cut])
        rest = Counting(experiment)
        job(rest).to_file(read(source), output, IDENTITY, overwrite=False)
        kept = 16 * max(sum(end <= cut for end in ends) - 1, 0)
        assert rest.predicted == 60 - kept, cut
        assert output.read_bytes() == whole.read_bytes(), cut
        output.unlink()
    zeros = journal[: ends[1]] + bytes(len(journal) - ends[1] - 1) + b"\n"  # after a power cut
    gap = journal[: ends[0]] + journal[ends[1] :]
    for damaged in (zeros, gap):
        journal_path(output).write_bytes(damaged)
        job(experiment).to_file(read(source), output, IDENTITY, overwrite=False)
        assert output.read_bytes() == whole.read_bytes()
        output.unlink()


@pytest.fixture
def unfinished(experiment: Experiment, source: Path, tmp_path: Path) -> Path:
    output = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        job(Counting(experiment, stop=32)).to_file(read(source), output, IDENTITY, overwrite=False)
    return output


@pytest.mark.parametrize("name", list(IDENTITY))
def test_an_output_of_other_predictions_is_not_continued(
    experiment: Experiment, source: Path, unfinished: Path, name: str
) -> None:
    before = journal_path(unfinished).read_bytes()
    other = {**IDENTITY, name: "other"}
    with pytest.raises(OutputError, match=f"with {name} .*has other; .* --overwrite"):
        job(experiment).to_file(read(source), unfinished, other, overwrite=False)
    assert journal_path(unfinished).read_bytes() == before
    job(experiment).to_file(read(source), unfinished, other, overwrite=True)
    assert len(rows(unfinished)) == 60


@pytest.mark.parametrize("change", ["a text", "fewer texts"])
def test_an_output_of_another_input_is_not_continued(
    experiment: Experiment, source: Path, unfinished: Path, change: str
) -> None:
    lines = source.read_text("utf-8").splitlines(keepends=True)
    lines[20:] = [] if change == "fewer texts" else ['{"text": "a day"}\n', *lines[21:]]
    source.write_text("".join(lines), "utf-8")
    with pytest.raises(DataError, match=r"another input: its first 32 texts .* --overwrite"):
        job(experiment).to_file(read(source), unfinished, IDENTITY, overwrite=False)
    assert not unfinished.exists()


def test_one_process_at_a_time_writes_an_output(
    experiment: Experiment, source: Path, unfinished: Path
) -> None:
    with (
        Journal(journal_path(unfinished), IDENTITY, anew=False) as journal,
        pytest.raises(OutputError, match="another process writes to it"),
    ):
        job(experiment).to_file(read(source), unfinished, IDENTITY, overwrite=True)
    assert journal.rows == 32


def test_a_file_that_exists_is_replaced_only_when_asked_and_only_at_the_end(
    experiment: Experiment, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("mine", "utf-8")
    with pytest.raises(OutputError, match="exists; replace it with --overwrite"):
        job(experiment).to_file(read(source), output, IDENTITY, overwrite=False)
    with pytest.raises(KeyboardInterrupt):
        job(Counting(experiment, stop=32)).to_file(read(source), output, IDENTITY, overwrite=True)
    assert output.read_text("utf-8") == "mine"
    job(experiment).to_file(read(source), output, IDENTITY, overwrite=True)
    assert len(rows(output)) == 60


def test_a_full_disk_is_one_line_and_the_output_continues(
    experiment: Experiment, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.jsonl"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OutputError, match=r"cannot write .*out\.jsonl: No space"):
            job(experiment).to_file(read(source), output, IDENTITY, overwrite=False)
    assert sorted(p.name for p in tmp_path.iterdir() if "out" in p.name) == ["out.jsonl.partial"]
    rest = Counting(experiment)
    job(rest).to_file(read(source), output, IDENTITY, overwrite=False)
    assert rest.predicted == 0
    assert len(rows(output)) == 60


def test_rows_without_text_have_no_prediction_and_say_why(
    experiment: Experiment, tmp_path: Path
) -> None:
    path = tmp_path / "texts.jsonl"
    lines = [
        '{"text": "cat"}',
        '{"text": " "}',
        "",
        '{"id": 3}',
        '{"text": 4}',
        '{"text": "\\ud800"}',
    ]
    path.write_text("\n".join([*lines, '{"text": "dog"}']) + "\n", "utf-8")
    output = tmp_path / "out.jsonl"
    outcome = job(experiment, task="animals").to_file(read(path), output, IDENTITY, overwrite=False)
    found = rows(output)
    assert [row["row"] for row in found] == [1, 2, 3, 4, 5, 6]
    assert [row["label"] is None for row in found] == [False, True, True, True, True, False]
    assert [row["problem"] is None for row in found] == [
        False ^ (row["label"] is not None) for row in found
    ]
    assert (outcome.rows, outcome.without) == (6, 4)
    assert outcome.first_problem is not None
    assert outcome.first_problem.startswith(f"{path}:2: empty text in column 'text'")


def test_a_text_that_the_tokenizer_refuses_does_not_cost_the_others_their_predictions(
    experiment: Experiment, tmp_path: Path
) -> None:
    path = write_as(".jsonl", ["cat", "x" + " " * (1 << 21), "dog"], tmp_path)
    output = tmp_path / "out.jsonl"
    job(experiment, task="animals").to_file(read(path), output, IDENTITY, overwrite=False)
    assert [row["label"] is None for row in rows(output)] == [False, True, False]
    assert "row 2: " in rows(output)[1]["problem"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            '{"body": "cat"}\n',
            r"a\.jsonl:1: no column 'text'; it has body\. .*--text-column body",
        ),
        ("a.csv", "txt,b\ncat,1\n", r"a\.csv:1: no column 'text'; .*--text-column txt"),
        ("a.jsonl", '{"text": "cat"}\ncat\n', r"a\.jsonl:2: not JSON"),
        ("a.csv", 'text,b\n"cat,1\n', r"a\.csv:2: not CSV"),
        ("a.parquet", "no", r"a\.parquet: not a Parquet file"),
    ],
)
def test_a_file_that_is_not_one_is_refused_with_its_line(
    experiment: Experiment, name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(DataError, match=message):
        job(experiment).to_stream(read(tmp_path / name), lambda _: None)


class Fast:
    """Predicts nothing in particular, as fast as possible."""

    def predict(self, texts: list[str], *_: object, **__: object) -> list[Prediction]:
        return [Prediction("a", 1.0, {"a": 1.0}, "t", 1.0, abstained=False) for _ in texts]


def test_a_stream_is_read_one_block_ahead_of_what_is_written() -> None:
    taken, written = 0, 0

    class Endless:
        done = None

        def rows(self) -> Iterator[InputRow]:
            nonlocal taken
            while taken < 1000:
                taken += 1
                yield InputRow(taken, "a", None)

    def write(block: Sequence[Any]) -> None:
        nonlocal written
        written += len([*block])
        assert taken == written

    job(Fast()).to_stream(Endless(), write)  # type: ignore[arg-type]
    assert written == 1000


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path, output = tmp_path / f"{count}.jsonl", tmp_path / f"out{count}.jsonl"
        path.write_text('{"text": "the cat sat on the mat"}\n' * count, "utf-8")
        tracemalloc.start()
        try:
            job(Fast()).to_file(read(path), output, IDENTITY, overwrite=False)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # imports
    assert peak(20_000) < 2 * peak(2000)


def test_lines_are_written_as_utf8_json(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with path.open("w", encoding="utf-8") as out:
        jsonl_writer(out)([{"label": "não"}])
    assert path.read_text("utf-8") == '{"label": "não"}\n'
