from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.samples import Rows, WriteTask, write_split
from plora_cl.data.sources.declaration import parse_task
from plora_cl.data.tokens.scan import scan
from plora_cl.errors import DataError

GOOD = b'{"text": "red cat", "label": "a"}\n{"text": "blue dog", "label": "b"}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "task"
    folder.mkdir()
    return folder


def refused(folder: Path, *parts: str) -> None:
    """Reading ``folder`` fails with a message that holds every one of ``parts``."""
    with pytest.raises(DataError) as caught:
        scan(parse_task(folder))
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def with_train(folder: Path, content: bytes, name: str = "train.jsonl") -> Path:
    (folder / name).write_bytes(content)
    (folder / "test.jsonl").write_bytes(GOOD)
    return folder / name


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "absent", str(tmp_path / "absent"), "is not a folder", "train, test")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split_is_named_with_what_was_found(folder: Path, split: str) -> None:
    with_train(folder, GOOD)
    (folder / f"{split}.jsonl").rename(folder / "other.jsonl")
    refused(folder, f"no {split} split", str(folder), f"{split}.csv", "other.jsonl", "splits: {")


def test_a_validation_split_is_missed_only_where_it_was_asked_for(folder: Path) -> None:
    with_train(folder, GOOD.replace(b"red", b"red far") + GOOD)
    assert scan(parse_task(folder)).validates is not None
    with pytest.raises(DataError, match=r"no validation split .* dev\.jsonl"):
        scan(parse_task({"path": str(folder), "splits": {"validation": "dev"}}))


def test_two_files_for_one_split_are_both_named(folder: Path) -> None:
    with_train(folder, GOOD)
    (folder / "train.csv").write_text("text,label\nred,a\n", encoding="utf-8")
    refused(folder, "two files", str(folder / "train.csv"), str(folder / "train.jsonl"))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_missing_column_is_named_with_those_found_and_the_way_to_map_it(
    folder: Path, suffix: str
) -> None:
    with_train(folder, GOOD)
    (folder / "train.jsonl").unlink()
    if suffix == ".parquet":
        pq.write_table(pa.table({"body": ["red"], "label": ["a"]}), folder / "train.parquet")
    else:
        content = "body,label\nred,a\n" if suffix == ".csv" else '{"body": "red", "label": "a"}\n'
        (folder / f"train{suffix}").write_text(content, encoding="utf-8")
    example = "text_column: body, label_column: label}"
    refused(folder, f"train{suffix}", "'text'", "it has body, label.", example)


def test_a_column_in_the_wrong_case_is_told_apart(folder: Path) -> None:
    with_train(folder, b'{"id": 1, "Text": "red", "Folder": "a"}\n')
    said = "it has id, Text, Folder (did you mean Text?). Name the right ones"
    refused(folder, said, "text_column: Text, label_column: LABEL}")


def test_columns_of_which_nothing_is_known_are_not_proposed(folder: Path) -> None:
    with_train(folder, b'{"id": 1, "body": "red", "folder": "a"}\n')
    refused(folder, "it has id, body, folder.", "text_column: TEXT, label_column: LABEL}")


def test_a_task_that_is_nearly_there_is_told(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    refused(folder.parent / f"{folder.name}s", f"did you mean {folder}? ")
    refused(folder.parent / "a,data" / "b", "several tasks are separated by spaces")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"text": "", "label": "a"}', "empty text in column 'text'"),
        (b'{"text": " \\t", "label": "a"}', "empty text in column 'text'"),
        (b'{"text": null, "label": "a"}', "empty text in column 'text'"),
        (b'{"text": 3, "label": "a"}', "holds a int"),
        (b'{"text": "red", "label": ""}', "empty label in column 'label'"),
        (b'{"text": "red", "label": null}', "empty label in column 'label'"),
        (b'{"text": "red", "label": true}', "label True is a bool"),
        (b'{"text": "red", "label": 1.0}', "label 1.0 is a float"),
        (b'{"text": "red", "label": ["a"]}', "is a list"),
        (b'{"text": "\\ud83d", "label": "a"}', "surrogate"),
        (b'{"text": "red"}', "this row has no 'label', only text; add it or remove the row"),
        (b'{"text": "red", "label"', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'["red", "a"]', "a JSON list instead of an object"),
        (b'{"text": "caf\xe9", "label": "a"}', "not UTF-8 (byte 0xe9)"),
    ],
)
def test_a_bad_line_of_json_is_named_by_file_and_line(
    folder: Path, line: bytes, expected: str
) -> None:
    path = with_train(folder, GOOD + b"\n" + line + b"\n" + GOOD)
    refused(folder, f"{path}:4: ", expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'"",a', "empty text"),
        (b"red, ", "empty label"),
        (b"red,green,a", "3 fields under a header of 2"),
        (b"red", "1 fields under a header of 2"),
        (b'"red"s,a', "not CSV"),
        (b'"red,a', "not CSV"),
        (b"caf\xe9,a", "not UTF-8 (byte 0xe9)"),
    ],
)
def test_a_bad_line_of_csv_is_named_by_file_and_line(
    folder: Path, line: bytes, expected: str
) -> None:
    start = b'text,label\n"red\ncat",a\nblue,b\n'
    path = with_train(folder, start + line + b"\ngreen,b\n", "train.csv")
    refused(folder, f"{path}:5: ", expected)


TABLE = "text,label\nred cat,a\nblue dog,b\n"


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-16", "UTF-16 "),
        ("utf-16-be", "UTF-16BE "),
        ("utf-16-le", "UTF-16LE "),
        ("utf-32", "UTF-32 "),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_wider_encodings_are_named_with_the_command_that_converts_them(
    folder: Path, encoding: str, name: str, suffix: str
) -> None:
    text = GOOD.decode() if suffix == ".jsonl" else TABLE
    path = with_train(folder, text.encode(encoding), f"train{suffix}")
    refused(folder, f"{path}: {name}instead of UTF-8", "-t utf-8")
    with pytest.raises(DataError) as caught:
        scan(parse_task(folder))
    command = str(caught.value).partition("for instance with ")[2]
    subprocess.run(command, shell=True, cwd=folder, check=True)
    assert scan(parse_task(folder), hold_out=False).classes == ("a", "b")


@pytest.mark.parametrize(
    ("delimiter", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")]
)
def test_other_separators_are_named_with_the_command_that_converts_them(
    folder: Path, delimiter: str, name: str
) -> None:
    content = TABLE.replace(",", delimiter).replace("red cat", "red, cat")
    path = with_train(folder, content.encode(), "train.csv")
    refused(folder, f"{path}:1: columns are separated by {name}", "text,label")
    with pytest.raises(DataError) as caught:
        scan(parse_task(folder))
    command = str(caught.value).partition("for instance with ")[2]
    subprocess.run(command, shell=True, cwd=folder, check=True)
    assert [row.text for row in parse_task(folder).rows("train")] == ["red, cat", "blue dog"]


def test_latin_1_is_named_with_the_command_that_converts_it_from_any_folder(
    folder: Path, tmp_path: Path
) -> None:
    spaced = folder.rename(folder.parent / "my mails")
    with_train(spaced, TABLE.replace("cat", "café").encode("latin1"), "train.csv")
    with pytest.raises(DataError, match="not UTF-8") as caught:
        scan(parse_task(spaced))
    command = str(caught.value).partition("for instance with ")[2]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert [row.text for row in parse_task(spaced).rows("train")] == ["red café", "blue dog"]


def test_a_tab_separated_file_is_named_with_the_command_that_converts_it(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    for split in ("train", "test"):
        (folder / f"{split}.tsv").write_text(TABLE.replace(",", "\t"))
    for split in ("train", "test"):
        with pytest.raises(DataError, match=rf"test\.tsv.*; convert {split}\.tsv") as caught:
            parse_task(folder).splits()
        command = str(caught.value).partition("for instance with ")[2]
        subprocess.run(command, shell=True, cwd=folder, check=True)
    assert [row.text for row in parse_task(folder).rows("train")] == ["red cat", "blue dog"]


def test_an_empty_folder_is_said_to_hold_no_file(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="found no file; add it"):
        parse_task(folder).splits()


def test_a_label_that_is_known_but_for_white_space_or_case_is_said_to_be(folder: Path) -> None:
    with_train(folder, GOOD)
    (folder / "test.jsonl").write_bytes(GOOD.replace(b'"a"', b'" A"'))
    refused(folder, "label ' A' (but for white space or case it is 'a') does not occur")


def test_a_line_that_is_not_utf_8_is_found_far_into_a_csv_file(folder: Path) -> None:
    rows = b"".join(b"text number %d,a\n" % n for n in range(20_000))
    path = with_train(folder, b"text,label\n" + rows + b"\xff,a\n" + rows, "train.csv")
    refused(folder, f"{path}:20002: not UTF-8 (byte 0xff)")


@pytest.mark.parametrize("header", [b"text,label,text", b"label,text,label"])
def test_a_csv_column_that_occurs_twice_is_refused(folder: Path, header: bytes) -> None:
    path = with_train(folder, header + b"\na,b,c\n", "train.csv")
    refused(folder, f"{path}:1: ", "two columns are named")


@pytest.mark.parametrize(
    ("texts", "labels", "expected"),
    [
        (["red", ""], ["a", "b"], "train.parquet:2: empty text"),
        (["red", "blue"], ["a", None], "train.parquet:2: empty label"),
        (["red", "blue"], [1.5, 2.5], "train.parquet:1: label 1.5 is a float"),
    ],
)
def test_a_bad_row_of_parquet_is_named_by_file_and_row(
    folder: Path, texts: list[str], labels: list[object], expected: str
) -> None:
    with_train(folder, GOOD)
    (folder / "train.jsonl").unlink()
    pq.write_table(pa.table({"text": texts, "label": labels}), folder / "train.parquet")
    refused(folder, expected)


def test_parquet_strings_that_are_not_utf_8_are_named_by_row(folder: Path) -> None:
    with_train(folder, GOOD)
    (folder / "train.jsonl").unlink()
    broken = pa.array([b"red", b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"text": broken, "label": ["a", "b"]}), folder / "train.parquet")
    refused(folder, "train.parquet:2: not UTF-8")


def test_a_parquet_file_that_is_none_is_refused(folder: Path) -> None:
    with_train(folder, b"not parquet", "train.parquet")
    refused(folder, "train.parquet: not a Parquet file")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_unknown_to_training_is_named_by_file_and_line(folder: Path, split: str) -> None:
    with_train(folder, GOOD)
    path = folder / f"{split}.jsonl"
    path.write_bytes(GOOD + b'{"text": "red", "label": "c"}\n')
    refused(folder, f"{path}:3: label 'c' does not occur in the training split", "'a', 'b'")


def test_one_class_only_is_refused(folder: Path) -> None:
    path = with_train(folder, GOOD.replace(b'"b"', b'"a"'))
    refused(folder, str(path), "every row has the label 'a'", "two classes")


@pytest.mark.parametrize(
    ("split", "name", "content"),
    [
        ("train", "train.jsonl", b"\n\n"),
        ("train", "train.csv", b"text,label\n"),
        ("train", "train.csv", b""),
        ("test", "test.jsonl", b""),
        ("validation", "validation.jsonl", b""),
    ],
)
def test_an_empty_split_is_refused(folder: Path, split: str, name: str, content: bytes) -> None:
    if split != "train":
        with_train(folder, GOOD)
    (folder / "test.jsonl").write_bytes(GOOD)
    (folder / name).write_bytes(content)
    refused(folder, str(folder / name), f"the {split} split has no rows")


def test_too_few_texts_to_hold_any_out_is_refused(folder: Path) -> None:
    path = with_train(folder, GOOD + GOOD)
    refused(folder, str(path), "no class has two different texts", "validation split")


def test_every_format_reads_quotes_line_breaks_and_huge_fields_alike(tmp_path: Path) -> None:
    rows: Rows = [
        ('say "red", cat', "a"),
        ("two\nlines,\r\nand three", "b"),
        ("é ü 猫 🐈", "ä"),
        ("far " * 60_000, "a"),
    ]
    for suffix in (".jsonl", ".csv", ".parquet"):
        folder = tmp_path / suffix[1:]
        folder.mkdir()
        write_split(folder / f"train{suffix}", rows)
        write_split(folder / f"test{suffix}", rows)
        read = [(row.text, row.label) for row in parse_task(folder).rows("train")]
        assert read == rows


@pytest.mark.parametrize("name", ["train.jsonl", "train.csv"])
def test_a_byte_order_mark_is_not_part_of_the_text(folder: Path, name: str) -> None:
    content = GOOD if name.endswith("jsonl") else b"text,label\nred cat,a\nblue dog,b\n"
    with_train(folder, b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"), name)
    read = [(row.text, row.label) for row in parse_task(folder).rows("train")]
    assert read == [("red cat", "a"), ("blue dog", "b")]


def test_a_csv_row_that_spans_lines_is_named_by_its_first(folder: Path) -> None:
    path = with_train(folder, b'text,label\nred,a\n\n"blue\n\ndog",\n', "train.csv")
    with pytest.raises(DataError, match=re.escape(f"{path}:4: empty label")):
        scan(parse_task(folder))


def test_integer_and_string_labels_of_the_same_name_are_one_class(folder: Path) -> None:
    with_train(folder, GOOD.replace(b'"a"', b"1").replace(b'"b"', b"2"))
    (folder / "test.jsonl").write_bytes(b'{"text": "red", "label": "2"}\n')
    (folder / "validation.jsonl").write_bytes(b'{"text": "red", "label": 1}\n')
    assert scan(parse_task(folder)).classes == ("1", "2")


def test_a_written_task_is_read_without_complaint(
    write_task: WriteTask, animals: dict[str, Rows]
) -> None:
    assert scan(parse_task(write_task(animals))).rows == {
        "train": 40,
        "validation": 10,
        "test": 12,
    }
