from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from plora_cl.data.sources.base import Columns
from plora_cl.data.sources.hub import HubSource
from plora_cl.data.tokens.scan import scan
from plora_cl.errors import DataError

NAMES = ["world", "sports", "business", "unused"]


def save(folder: Path, split: str, labels: list[int], start: int = 0) -> None:
    """A split as the hub's own Parquet files are: class names travel in the schema."""
    folder.mkdir(exist_ok=True)
    count = range(start, start + len(labels))
    columns = {
        "title": [f"title {n}" for n in count],
        "content": [f"content {n}" for n in count],
        "label": labels,
    }
    features = Features(
        {"title": Value("string"), "content": Value("string"), "label": ClassLabel(names=NAMES)}
    )
    Dataset.from_dict(columns, features=features).to_parquet(str(folder / f"{split}.parquet"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubSource:
    """What ``load_dataset`` reads: it takes a folder for a hub id."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "downloads")
    save(tmp_path / "news", "train", [0, 1, 2] * 20)
    save(tmp_path / "news", "test", [2, 0, 1] * 4, start=100)
    return HubSource("news", str(tmp_path / "news"), Columns(("title", "content")))


def test_class_labels_get_their_names_in_the_order_of_the_data_set(hub: HubSource) -> None:
    assert hub.splits() == ("train", "test")
    found = scan(hub)
    assert found.classes == ("world", "sports", "business")
    assert found.rows == {"train": 60, "test": 12}
    row = next(hub.rows("test"))
    assert (row.line, row.text, row.label) == (1, "title 100 content 100", "business")


def test_splits_are_mapped_and_a_missing_one_is_named_with_those_found(hub: HubSource) -> None:
    def mapped(**split_names: str) -> HubSource:
        return HubSource("news", hub.dataset, hub.columns, split_names)

    swapped = mapped(train="test", validation="train", test="test")
    assert swapped.splits() == ("train", "validation", "test")
    assert len(list(swapped.rows("validation"))) == 60
    with pytest.raises(DataError, match=r"has no split 'dev'; it has \['test', 'train'\]"):
        mapped(validation="dev").splits()


def test_a_missing_column_is_named_with_those_found(hub: HubSource) -> None:
    other = HubSource("news", hub.dataset)
    with pytest.raises(DataError, match=r"\[train\]: no column 'text'; it has title, content"):
        list(other.rows("train"))


def test_an_unlabelled_split_is_named_by_row(hub: HubSource) -> None:
    save(Path(hub.dataset), "test", [0, -1])
    with pytest.raises(DataError, match=r"\[test\]:2: label -1 .* unlabelled"):
        scan(hub)


def test_the_content_digest_depends_on_rows_and_columns_and_not_on_the_place(
    hub: HubSource, tmp_path: Path
) -> None:
    save(tmp_path / "copy", "train", [0, 1, 2] * 20)
    save(tmp_path / "copy", "test", [2, 0, 1] * 4, start=100)
    copy = HubSource("other", str(tmp_path / "copy"), hub.columns)
    assert copy.content_digest() == hub.content_digest()
    titles = HubSource("news", hub.dataset, Columns(("title",)))
    assert titles.content_digest() != hub.content_digest()
    save(tmp_path / "copy", "test", [2, 0, 0] * 4, start=100)
    changed = HubSource("other", str(tmp_path / "copy"), hub.columns)
    assert changed.content_digest() != hub.content_digest()


@pytest.mark.slow
def test_a_hub_out_of_reach_is_an_error_that_names_the_quickstart(tmp_path: Path) -> None:
    code = (
        "from plora_cl.data.sources.declaration import parse_task\n"
        "from plora_cl.errors import DataError\n"
        "try: parse_task('ag_news').splits()\n"
        "except DataError as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "cannot load data set fancyzhx/ag_news from the hub" in done.stdout
    assert "--preset quickstart" in done.stdout
