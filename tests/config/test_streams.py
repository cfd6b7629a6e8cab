"""Streams and presets by name."""

from __future__ import annotations

import pytest

from plora_cl.cli.train.flags import train_parser
from plora_cl.config.precedence import resolve, validate
from plora_cl.config.presets import preset_names
from plora_cl.config.streams import STREAMS
from plora_cl.data.sources.declaration import parse_tasks
from plora_cl.errors import SettingsError

PUBLISHED = {
    "plora5": "ag_news yelp_polarity amazon_polarity dbpedia_14 yahoo_answers_topics",
    "bert-order-4": "ag_news yelp_review_full amazon_reviews_5 yahoo_answers_topics dbpedia_14",
    "bert-order-5": "yelp_review_full yahoo_answers_topics amazon_reviews_5 dbpedia_14 ag_news",
    "bert-order-6": "dbpedia_14 yahoo_answers_topics ag_news amazon_reviews_5 yelp_review_full",
    "standard-order-1": "dbpedia_14 amazon_reviews_5 yahoo_answers_topics ag_news",
    "standard-order-2": "dbpedia_14 amazon_reviews_5 ag_news yahoo_answers_topics",
    "standard-order-3": "yahoo_answers_topics amazon_reviews_5 ag_news dbpedia_14",
}


@pytest.mark.parametrize(("name", "tasks"), PUBLISHED.items())
def test_a_stream_by_name_is_its_published_order(name: str, tasks: str) -> None:
    assert validate({"tasks": name}).tasks == tuple(tasks.split())
    assert [source.name for source in parse_tasks(tasks.split())] == tasks.split()


def test_every_stream_is_checked() -> None:
    assert PUBLISHED.keys() == STREAMS.keys()


def test_a_stream_is_a_value_of_the_flag() -> None:
    typed = vars(train_parser().parse_args(["--tasks", "bert-order-4"]))
    assert validate({"tasks": typed["tasks"]}).tasks == STREAMS["bert-order-4"]


def test_an_unknown_stream_is_named_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"'bert-order-7'; expected .* there are plora5, bert-"):
        validate({"tasks": "bert-order-7"})


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_run_that_can_start(name: str) -> None:
    settings = resolve(preset=name).settings
    assert parse_tasks(list(settings.tasks))


def test_published_protocols_have_their_limits() -> None:
    idbr = resolve(preset="idbr-sampled").settings
    assert idbr.max_train_examples_per_class == idbr.max_validation_examples_per_class == 2000
    assert (idbr.max_length, idbr.batch_size, idbr.learning_rate) == (256, 8, 3e-5)
    olora = resolve(preset="olora-standard").settings
    assert (olora.max_train_examples_per_class, olora.composition) == (1000, "cumulative")


@pytest.mark.parametrize(
    ("values", "setting"),
    [
        ({"max_train_examples": 5, "max_train_examples_per_class": 5}, "max_train_examples"),
        ({"max_eval_examples": 5, "max_validation_examples_per_class": 5}, "max_eval_examples"),
    ],
)
def test_two_limits_of_the_same_examples_exclude_one_another(
    values: dict[str, object], setting: str
) -> None:
    with pytest.raises(SettingsError, match=f"keep one of .* and {setting}"):
        validate(values)
