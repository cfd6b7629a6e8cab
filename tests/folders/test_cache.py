"""``plora-cl cache`` shows and clears caches, and leaves what a living run uses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import tiny
from folders.conftest import Answered
from generators import ScriptedGenerator
from plora_cl.cache_folder import GENERATED
from plora_cl.data.loading import load_tasks
from plora_cl.data.task import Task
from plora_cl.folders.caches import cache_entries, clear
from plora_cl.generation.text_cache import CachedGenerator
from plora_cl.model.encoder import load_tokenizer

USE = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[1].split(":")
from folders.test_cache import loaded
tasks = loaded(Path(sys.argv[2]), ["animals"])
print("used", flush=True)
time.sleep(60)
print(len(tasks))
"""


def loaded(place: Path, names: list[str]) -> list[Task]:
    return load_tasks(
        [str(place / "tasks" / name) for name in names],
        load_tokenizer(str(place / "encoder")),
        max_length=16,
        max_train_examples=0,
        max_eval_examples=0,
        seed=1,
        cache_dir=place / "cache",
        progress=lambda _: None,
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder whose cache has the tokens of three tasks, which no process uses."""
    tiny.make_encoder(tmp_path / "encoder")
    tiny.make_tasks(tmp_path / "tasks")
    loaded(tmp_path, ["animals", "weather", "food"])
    return tmp_path


def token_files(place: Path) -> list[Path]:
    return sorted((place / "cache").glob("*/*.arrow"))


@contextmanager
def used_elsewhere(place: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process read the tokens of ``animals``."""
    command = [sys.executable, "-c", USE, os.pathsep.join(sys.path), str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "used\n"
        try:
            yield process
        finally:
            process.kill()


def test_every_entry_is_listed_with_its_classes_and_bytes(place: Path, call: Answered) -> None:
    found = call.json("cache", "--dir", place / "cache")
    assert found["bytes"] == sum(path.stat().st_size for path in token_files(place))
    assert {entry["about"] for entry in found["entries"]} == {
        "cat, dog",
        "rain, sun",
        "bread, fruit, soup",
    }
    assert not any(entry["in_use"] for entry in found["entries"])
    assert call("cache", "size", "--dir", place / "cache") == 0
    assert "3 entries" in call.out


def test_what_is_cleared_is_tokenised_again(place: Path, call: Answered) -> None:
    before = [task.digest for task in loaded(place, ["animals", "food"])]
    files = token_files(place)
    assert call("cache", "clear", "--dir", place / "cache", "--dry-run") == 0
    assert token_files(place) == files
    assert call("cache", "clear", "--dir", place / "cache") == 0
    assert "3 entries" in call.out
    assert token_files(place) == []
    assert [task.digest for task in loaded(place, ["animals", "food"])] == before


@pytest.mark.fault
def test_what_another_living_process_uses_stays(place: Path, call: Answered) -> None:
    with used_elsewhere(place) as process:
        found = call.json("cache", "clear", "--dir", place / "cache")
        assert [entry["about"] for entry in found["in_use"]] == ["cat, dog"]
        assert len(found["removed"]) == 2
        assert len(token_files(place)) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert call("cache", "clear", "--dir", place / "cache") == 0
        assert token_files(place) == []


def test_what_this_process_uses_stays_until_it_is_dropped(place: Path, call: Answered) -> None:
    tasks = loaded(place, ["food"])
    assert call("cache", "clear", "--dir", place / "cache") == 0
    assert "1 entry" in call.out.splitlines()[-1]
    assert len(token_files(place)) == 1
    assert len(tasks[0].test.texts()) == 20
    del tasks
    assert call("cache", "clear", "--dir", place / "cache") == 0
    assert token_files(place) == []


def test_an_entry_that_comes_into_use_after_it_was_listed_stays(place: Path) -> None:
    listed = cache_entries(place / "cache")
    assert not any(entry.is_in_use for entry in listed)
    tasks = loaded(place, ["food"])
    assert len(clear(listed)) == 2
    assert len(tasks[0].test.texts()) == 20
    assert len(token_files(place)) == 1


def test_generated_texts_are_an_entry_and_stay_while_a_generator_uses_them(
    tmp_path: Path, call: Answered
) -> None:
    generator = CachedGenerator(ScriptedGenerator(), tmp_path / GENERATED, {})
    texts = generator.generate("About cats:", count=3, seed=1)
    (entry,) = call.json("cache", "--dir", tmp_path)["entries"]
    assert (entry["kind"], entry["in_use"]) == ("generated", True)
    assert call("cache", "clear", "--dir", tmp_path) == 0
    assert list((tmp_path / GENERATED).glob("*/*.json"))
    del generator
    assert call("cache", "clear", "--dir", tmp_path) == 0
    assert not list((tmp_path / GENERATED).glob("*/*.json"))
    again = CachedGenerator(ScriptedGenerator(), tmp_path / GENERATED, {})
    assert again.generate("About cats:", count=3, seed=1) == texts


def test_only_entries_that_were_not_used_for_long_are_cleared(place: Path, call: Answered) -> None:
    month_ago = time.time() - 30 * 86_400
    users = sorted((place / "cache").glob("*/users"))
    os.utime(users[0], (month_ago, month_ago))
    found = call.json("cache", "clear", "--dir", place / "cache", "--older-than", "29")
    assert [Path(entry["folder"]) for entry in found["removed"]] == [users[0].parent]
    assert len(token_files(place)) == 2


def test_files_of_others_stay_and_looking_changes_nothing(
    place: Path, call: Answered, loaded_by: Callable[..., tuple[int, str, set[str]]]
) -> None:
    others = place / "cache" / "mine"
    others.mkdir()
    (others / "a.arrow").write_text("mine")
    (place / "cache" / "note.txt").write_text("mine")
    for path in (place / "cache").glob("*/users"):
        path.unlink()  # as an earlier version left it
    before = {path: path.stat().st_mtime_ns for path in (place / "cache").rglob("*")}
    code, out, heavy = loaded_by("cache", "--dir", place / "cache")
    assert (code, heavy) == (0, set())
    assert "3 entries" in out
    assert {path: path.stat().st_mtime_ns for path in (place / "cache").rglob("*")} == before
    assert call("cache", "clear", "--dir", place / "cache") == 0
    assert (others / "a.arrow").read_text() == "mine"
    assert (place / "cache" / "note.txt").exists()
    assert token_files(place) == [others / "a.arrow"]


def test_a_mistake_is_one_line(tmp_path: Path, call: Answered) -> None:
    assert call("cache", "claer") == 2
    assert "did you mean clear?" in call.error
    assert call("cache", "--dry-run") == 2
    assert "--dry-run needs clear" in call.error
    assert call("cache", "--dir", tmp_path / "none") == 0
    assert "0 entries" in call.out
