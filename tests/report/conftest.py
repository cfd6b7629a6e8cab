from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import tiny
from plora_cl.cli.main import main
from training.going_on import cut, train

Report = Callable[..., Path]


@dataclass
class Place:
    """Where runs are made, and what they are made with."""

    base: Path
    settings: dict[str, Any]

    def learn(self, name: str, **changes: Any) -> Path:
        return train({**self.settings, "experiment_name": name}, self.base, **changes)[0]

    def cut(self, name: str, *, after: int) -> Path:
        return cut({**self.settings, "experiment_name": name}, self.base, after=after)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    base = tmp_path_factory.mktemp("report")
    encoder = tiny.make_encoder(base / "model" / "tiny-bert")
    settings = {
        "model_name": str(encoder),
        "tasks": [str(folder) for folder in tiny.make_tasks(base / "tasks")],
        "cache_dir": str(base / "cache"),
        "device": "cpu",
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 0.02,
        "max_length": 16,
        "lora_r": 2,
        "shared": "layernorm",
        "use_ewc": True,
        "lambda_ewc": 100.0,
        "use_orthogonal": True,
        "composition": "cumulative",
        "checkpoint_every": 4,
    }
    return Place(base, settings)


@pytest.fixture(scope="session")
def finished(place: Place) -> Path:
    return place.learn("finished")


@pytest.fixture(scope="session")
def in_progress(place: Place) -> Path:
    """A run that was killed while it learned its third task, after 24 steps."""
    return place.cut("in-progress", after=24)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The finished run, to be changed."""
    return Path(
        shutil.copytree(finished, tmp_path / "copy", ignore=shutil.ignore_patterns(".lock"))
    )


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Return what writes a report with the command, and returns its folder."""

    def written(*arguments: object) -> Path:
        out = tmp_path_factory.mktemp("out") / "here"
        assert main(["report", *map(str, arguments), "--out", str(out)]) == 0
        return out

    return written


@pytest.fixture(scope="session")
def written(finished: Path, report: Report) -> Path:
    """The report of the finished run."""
    with contextlib.redirect_stdout(io.StringIO()):
        return report(finished)


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and all text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.source = path.read_text("utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]
