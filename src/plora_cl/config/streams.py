"""Streams by name: tasks in the order in which published work learns them."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

_AG, _DBPEDIA, _YAHOO = "ag_news", "dbpedia_14", "yahoo_answers_topics"
_YELP_5, _AMAZON_5 = "yelp_review_full", "amazon_reviews_5"

STREAMS: Mapping[str, tuple[str, ...]] = {
    "plora5": (_AG, "yelp_polarity", "amazon_polarity", _DBPEDIA, _YAHOO),
    "bert-order-4": (_AG, _YELP_5, _AMAZON_5, _YAHOO, _DBPEDIA),
    "bert-order-5": (_YELP_5, _YAHOO, _AMAZON_5, _DBPEDIA, _AG),
    "bert-order-6": (_DBPEDIA, _YAHOO, _AG, _AMAZON_5, _YELP_5),
    "standard-order-1": (_DBPEDIA, _AMAZON_5, _YAHOO, _AG),
    "standard-order-2": (_DBPEDIA, _AMAZON_5, _AG, _YAHOO),
    "standard-order-3": (_YAHOO, _AMAZON_5, _AG, _DBPEDIA),
}
"""Names of tasks of each stream.

Source: de Masson d'Autume et al. 2019, "Episodic Memory in Lifelong Language Learning", and Huang
et al. 2021 (IDBR) for ``bert-order-4`` to ``6``; Wang et al. 2023 (O-LoRA), table 7, for
``standard-order-1`` to ``3``. ``plora5`` has two classes of reviews instead of five.
"""


def expanded(value: object) -> object:
    """Return the tasks of the stream that ``value`` names; a list of tasks as it is.

    Raises:
        ValueError: There is no stream of that name.
    """
    match value:
        case str() if value not in STREAMS:
            raise ValueError(
                f"{value!r}; expected a list of tasks or the name of a stream; there are "
                f"{', '.join(STREAMS)}"
            )
        case str(name) | [str(name)]:
            return STREAMS.get(name, value)
    return value


def recognised(value: object) -> object:
    """Return ``value``, unless it is a list of one name that is nearly that of a stream.

    Raises:
        ValueError: It is; the message has the name that was meant.
    """
    match value:
        case [str(name)] if name not in STREAMS:
            meant = get_close_matches(name, STREAMS, n=1, cutoff=0.8)
            if meant and not Path(name).exists():
                raise ValueError(
                    f"{name!r}; neither a task nor a stream; did you mean {meant[0]}? There are "
                    f"{', '.join(STREAMS)}"
                )
    return value
