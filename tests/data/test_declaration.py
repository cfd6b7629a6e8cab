from __future__ import annotations

from pathlib import Path

import pytest

from plora_cl.data.sources.base import Columns
from plora_cl.data.sources.classes import OnlyClasses
from plora_cl.data.sources.declaration import HUB_TASKS, parse_task, spelled_out
from plora_cl.data.sources.folder import FolderSource
from plora_cl.data.sources.hub import HubSource
from plora_cl.data.sources.packaged import PACKAGED, PackagedSource
from plora_cl.errors import DataError


def test_a_known_name_is_a_packaged_corpus_or_a_hub_data_set() -> None:
    for name in PACKAGED:
        assert parse_task(name) == PackagedSource(name, name)
    assert parse_task("ag_news") == HubSource("ag_news", "fancyzhx/ag_news")
    yahoo = parse_task("yahoo_answers_topics")
    assert isinstance(yahoo, HubSource)
    assert yahoo.dataset == "community-datasets/yahoo_answers_topics"
    assert yahoo.columns.names == ["question_title", "question_content", "best_answer", "topic"]
    assert len(HUB_TASKS) == 7


def test_a_path_is_a_folder_named_by_its_last_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parse_task("./ag_news") == FolderSource("ag_news", Path("ag_news"))
    assert parse_task("some/where/reviews/") == FolderSource("reviews", Path("some/where/reviews"))
    assert parse_task(Path("reviews")) == FolderSource("reviews", Path("reviews"))
    assert parse_task("~/reviews") == FolderSource("reviews", Path.home() / "reviews")
    (tmp_path / "reviews").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_task("reviews") == FolderSource("reviews", Path("reviews"))
    assert parse_task("./").name == tmp_path.name


def test_a_folder_that_is_called_like_a_known_task_must_be_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bbc_news").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"\./bbc_news for the folder, or {packaged: bbc_news}"):
        parse_task("bbc_news")
    assert isinstance(parse_task("./bbc_news"), FolderSource)
    assert isinstance(parse_task({"packaged": "bbc_news"}), PackagedSource)


def test_a_mapping_says_where_and_how() -> None:
    assert parse_task({"name": "news", "packaged": "bbc_news"}) == PackagedSource(
        "news", "bbc_news"
    )
    assert parse_task({"path": Path("a/b"), "label_column": "topic"}) == FolderSource(
        "b", Path("a/b"), Columns(label="topic")
    )
    assert parse_task(
        {
            "hub": "owner/reviews",
            "text_column": ["title", "body"],
            "label_column": "stars",
            "splits": {"test": "dev"},
        }
    ) == HubSource("reviews", "owner/reviews", Columns(("title", "body"), "stars"), {"test": "dev"})


def test_a_known_hub_data_set_keeps_its_columns_under_another_name() -> None:
    for hub in ("dbpedia_14", "fancyzhx/dbpedia_14"):
        assert parse_task({"name": "onto", "hub": hub, "text_column": "content"}) == HubSource(
            "onto", "fancyzhx/dbpedia_14", Columns(("content",))
        )
        assert parse_task({"hub": hub}) == parse_task("dbpedia_14")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("bbc_new", r"no task is called 'bbc_new' \(did you mean 'bbc_news'\?\)"),
        ("zzzz", r"no task is called 'zzzz'; the names are bbc_news, .*ag_news.*\./zzzz"),
        ("", "no task is called ''"),
        (
            {"packaged": "bbc_new"},
            r"no packaged corpus is called 'bbc_new' \(did you mean 'bbc_news'\?\)",
        ),
        ({"packaged": "bbc_news", "splits": {"test": "a"}}, "splits has no effect"),
        ({"packaged": "bbc_news", "label_column": "a"}, "label_column has no effect"),
    ],
)
def test_a_wrong_entry_is_named_with_the_way_out(entry: object, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        parse_task(entry)  # type: ignore[arg-type]


@pytest.mark.parametrize("entry", ["bbc_news", "dbpedia_14", "./reviews", {"path": "a/b"}])
def test_an_entry_spelled_out_means_the_same_task(entry: str | dict[str, str]) -> None:
    assert parse_task(spelled_out(entry)) == parse_task(entry)


def test_some_classes_of_any_source_are_a_task() -> None:
    found = parse_task({**spelled_out("bbc_news"), "name": "half", "classes": ["sport", "tech"]})
    assert found == OnlyClasses(PackagedSource("half", "bbc_news"), ("sport", "tech"))
