from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

import pytest

from generators import ScriptedGenerator
from plora_cl.generation.text_cache import CachedGenerator


def cached(
    folder: Path, digest: str = "weights", **environment: object
) -> tuple[CachedGenerator, ScriptedGenerator]:
    asked = ScriptedGenerator(digest=digest)
    return CachedGenerator(asked, folder, {"threads": 1, **environment}), asked


def test_a_second_run_gets_the_same_texts_without_generating(tmp_path: Path) -> None:
    first, asked = cached(tmp_path)
    texts = first.generate("prompt", count=3, seed=1)
    assert len(asked.asked) == 1
    second, asked = cached(tmp_path)
    assert second.generate("prompt", count=3, seed=1) == texts
    assert asked.asked == []
    assert ScriptedGenerator().generate("prompt", count=3, seed=1) == texts


@pytest.mark.parametrize(
    ("other", "prompt", "count", "seed"),
    [
        ({"digest": "other"}, "prompt", 3, 1),
        ({"threads": 2}, "prompt", 3, 1),
        ({}, "another", 3, 1),
        ({}, "prompt", 2, 1),
        ({}, "prompt", 3, 2),
    ],
)
def test_everything_that_decides_a_text_decides_the_entry(
    tmp_path: Path, other: dict[str, str], prompt: str, count: int, seed: int
) -> None:
    first, _ = cached(tmp_path)
    first.generate("prompt", count=3, seed=1)
    second, asked = cached(tmp_path, **other)
    second.generate(prompt, count=count, seed=seed)
    assert len(asked.asked) == 1


def test_a_damaged_entry_is_made_again(tmp_path: Path) -> None:
    first, _ = cached(tmp_path)
    texts = first.generate("prompt", count=3, seed=1)
    (path,) = tmp_path.rglob("*.json")
    content = path.read_bytes()
    for damage in (b"", content[: len(content) // 2], content.replace(b"texts", b"text"), None):
        if damage is None:
            damage = content.replace(texts[0].text.encode(), b"x" * len(texts[0].text))
            assert damage != content
        path.write_bytes(damage)
        second, asked = cached(tmp_path)
        assert second.generate("prompt", count=3, seed=1) == texts
        assert len(asked.asked) == 1
        assert path.read_bytes() == content


def test_a_folder_that_cannot_be_written_is_reported_once_and_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    mine, asked = cached(blocked)
    with caplog.at_level(logging.WARNING):
        for seed in range(3):
            assert len(mine.generate("prompt", count=2, seed=seed)) == 2
    assert len(asked.asked) == 3
    assert [r.message.startswith("generated texts are not cached") for r in caplog.records] == [
        True
    ]


@pytest.mark.parametrize(
    "texts", ["[]", '[["a", 1]]', '[["a", 1], ["b", 2], [3, "c"]]', "[1, 2, 3]", "{}", "[" * 9999]
)
def test_an_entry_that_its_digest_fits_but_no_generator_wrote_is_made_again(
    tmp_path: Path, texts: str
) -> None:
    expected = cached(tmp_path)[0].generate("prompt", count=3, seed=1)
    (path,) = tmp_path.rglob("*.json")
    digest = hashlib.sha256(texts.encode()).hexdigest()
    entry = {"key": path.stem, "sha256": digest, "texts": texts}
    path.write_text(json.dumps(entry))
    assert cached(tmp_path)[0].generate("prompt", count=3, seed=1) == expected


def test_a_pipe_in_place_of_an_entry_does_not_block(tmp_path: Path) -> None:
    expected = cached(tmp_path)[0].generate("prompt", count=3, seed=1)
    (path,) = tmp_path.rglob("*.json")
    path.unlink()
    os.mkfifo(path)
    assert cached(tmp_path)[0].generate("prompt", count=3, seed=1) == expected
