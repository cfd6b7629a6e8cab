"""Settings from a stranger: bounded memory, and one line for whatever they are."""

from __future__ import annotations

import os
import random
import threading
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest

from plora_cl.config.fields import SettingFields
from plora_cl.config.precedence import dump, resolve, validate
from plora_cl.config.record import record
from plora_cl.config.yaml_file import MAX_BYTES, parse, read_mapping
from plora_cl.errors import SettingsError

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(letter)}: &{chr(letter)} [{', '.join([f'*{chr(letter - 1)}'] * 9)}]\n"
    for letter in range(ord("b"), ord("k"))
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{chr(letter)}: &{chr(letter)} {{<<: [{', '.join([f'*{chr(letter - 1)}'] * 9)}]}}\n"
    for letter in range(ord("b"), ord("k"))
)
SQUARE = f"classes: &c [{'x, ' * 1000}x]\ntasks:\n" + "- {path: x, classes: *c}\n" * 1000


@pytest.mark.parametrize("text", [LAUGHS, MERGES, SQUARE], ids=["laughs", "merges", "square"])
def test_aliases_do_not_multiply(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    tracemalloc.start()
    try:
        with pytest.raises(SettingsError, match=r"line \d+: its aliases .* expand to more than"):
            resolve(config=tmp_path / "c.yaml")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20


def test_aliases_may_be_used() -> None:
    text = "a: &a {x: 1}\nb: [*a, *a]\nc: {<<: *a, y: 2}\n"
    assert parse(text) == {"a": {"x": 1}, "b": [{"x": 1}, {"x": 1}], "c": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    "text",
    [
        "seed: 0x" + "f" * 5000, "seed: " + "1:" * 500 + "1", "seed: " + "1:" * 500 + "1.5",
        "seed: " + "9" * 5000, "seed: 2001-99-99", "seed: !!int ''", "seed: !!float x",
        "seed: !!timestamp 1", "seed: !!binary '%'", "? [a]\n: 1", "? {a: 1}\n: 1",
        "a: &a [*a]", "a: &a {b: *a}", "- " * 5000, "[" * 5000, "{a: " * 5000,
        "seed: !!python/object/apply:os.system ['true']", "seed: !<tag:x> 1",
        "%YAML 9.9\n---\na: 1",
        "seed: 2001-01-01 00:00:00 +99:99", '"\\ud800": 1', "\ud800", "seed: .nan", "--- 1\n--- 2",
        "lambda_ewc: " + "1:" * 500 + "1", "tasks: {" + "?" * 100, "seed: !!set {1: 2}",
    ],
)  # fmt: skip
def test_odd_yaml_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(SettingsError) as raised:
        resolve(config=tmp_path / "c.yaml")
    assert all("\n" not in problem for problem in raised.value.problems)


def test_an_endless_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").symlink_to("/dev/zero")
    with pytest.raises(SettingsError, match=f"longer than {MAX_BYTES} bytes"):
        read_mapping(tmp_path / "c.yaml")


def test_a_pipe_serves_as_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.yaml")
    writer = threading.Thread(target=(tmp_path / "c.yaml").write_text, args=("seed: 3\n",))
    writer.start()
    assert read_mapping(tmp_path / "c.yaml") == {"seed": 3}
    writer.join()


def test_the_settings_of_a_thousand_tasks_take_a_third_of_what_is_allowed() -> None:
    tasks = [
        {"name": f"task-{n}", "path": f"data/stream/task-{n}", "text_column": ["title", "content"],
         "label_column": "label", "classes": [f"class {c}" for c in range(10)]}
        for n in range(1000)
    ]  # fmt: skip
    text = dump(validate({"tasks": tasks}))
    assert len(text) < MAX_BYTES / 3
    assert isinstance(parse(text), dict)


def test_any_bytes_are_settings_or_one_line(tmp_path: Path) -> None:
    chance = random.Random(5)
    honest = dump(validate({"tasks": ["a", "b"]})).encode()
    path = tmp_path / "c.yaml"
    for _ in range(150):
        data = bytearray(honest)
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(data))
            data[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        path.write_bytes(bytes(data[: chance.randrange(len(data)) + 1]))
        with suppress(SettingsError):  # nothing else
            resolve(config=path)


@pytest.mark.parametrize(
    "task",
    ["data/x\x1b[31m", {"name": "x\nError: y", "path": "data"}, {"name": "\u202eabc", "path": "d"}],
)
def test_the_name_of_a_task_is_one_that_a_terminal_shows_as_it_is(task: object) -> None:
    with pytest.raises(SettingsError, match="give the task another name") as caught:
        validate({"tasks": ["data/food", task]})
    assert str(caught.value).isprintable()
    validate({"tasks": ["data/comida ção 食べ物"]})


NUMBERS = [
    name
    for name, field in SettingFields.model_fields.items()
    if isinstance(field.default, int | float) and not isinstance(field.default, bool)
] + ["checkpoint_disk_budget"]


@pytest.mark.parametrize(
    "digits",
    ["1" + "0" * 30, "1" + "0" * 400, "0x" + "f" * 6000, str(2**63)],
    ids=lambda digits: f"{len(digits)} digits",
)
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_nothing_can_be_computed_with_is_refused(name: str, digits: str) -> None:
    value = int(digits, 0)
    is_a_rate = isinstance(SettingFields.model_fields[name].default, float)
    if is_a_rate and value < 1 << 1000:
        return  # a float of this size is computed with, and found out where it breaks something
    with pytest.raises(SettingsError) as raised:
        validate({name: value})
    assert all(len(problem) < 300 for problem in raised.value.problems)


@pytest.mark.parametrize("name", ["lora_r", "lateral_rank", "replay_tuning_r"])
def test_a_rank_that_no_layer_has_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}: 2147483647; expected at most 65536"):
        validate({name: 2**31 - 1})


@pytest.mark.parametrize("size", ["9" * 400 + ".5 TB", "9" * 5000, "1." + "9" * 5000 + " kB"])
def test_a_size_of_hundreds_of_digits_is_refused(size: str) -> None:
    with pytest.raises(SettingsError, match="expected a size"):
        validate({"checkpoint_disk_budget": size})


@pytest.mark.parametrize(
    "values",
    [
        *({name: "\ud800"} for name in ("experiment_name", "experiment_dir", "cache_dir")),
        *({name: "x\udfff"} for name in ("model_name", "generation_model", "shared")),
        {"tasks": ["\ud800"]},
        {"tasks": [{"path": "a", "name": "\ud800"}]},
        {"tasks": [{"path": "a", "text_column": ["\ud800"]}]},
    ],
    ids=ascii,
)
def test_half_a_surrogate_pair_is_no_text(values: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="half of a surrogate pair; expected text"):
        validate(values)


@pytest.mark.parametrize("letter", ["x", "é", "\x7f", "\U000e0001", "'"], ids=ascii)
def test_settings_whose_record_could_not_be_read_are_refused(tmp_path: Path, letter: str) -> None:
    prompt = f"{letter * 500} {{label}}"
    settings = validate({"replay_prompts": [prompt]})
    each = len(dump(validate({"replay_prompts": [prompt] * 2}))) - len(dump(settings))
    each = max(each, len(prompt.encode()))
    with pytest.raises(SettingsError, match=r"replay_prompts: .* would have \d+ bytes"):
        validate({"replay_prompts": [prompt] * (MAX_BYTES // each + 1)})
    most = [prompt] * ((MAX_BYTES - 8000) // (each + 16))
    accepted = validate({"replay_prompts": most})
    (tmp_path / "config.yaml").write_bytes(record(dump(accepted), branch=999_999_999))
    assert read_mapping(tmp_path / "config.yaml")["replay_prompts"] == most
