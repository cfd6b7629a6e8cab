"""How a task is written in the settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from plora_cl.data.sources.base import SPLITS, Columns, TaskSource
from plora_cl.data.sources.classes import OnlyClasses
from plora_cl.data.sources.folder import FolderSource
from plora_cl.data.sources.hub import HubSource
from plora_cl.data.sources.packaged import PACKAGED, PackagedSource
from plora_cl.errors import DataError


class _HubTask(NamedTuple):
    dataset: str
    columns: Columns


HUB_TASKS = {
    "ag_news": _HubTask("fancyzhx/ag_news", Columns()),
    "yelp_polarity": _HubTask("fancyzhx/yelp_polarity", Columns()),
    "amazon_polarity": _HubTask("fancyzhx/amazon_polarity", Columns(("title", "content"))),
    "yelp_review_full": _HubTask("Yelp/yelp_review_full", Columns()),
    "amazon_reviews_5": _HubTask("SetFit/amazon_reviews_multi_en", Columns()),
    "dbpedia_14": _HubTask("fancyzhx/dbpedia_14", Columns(("title", "content"))),
    "yahoo_answers_topics": _HubTask(
        "community-datasets/yahoo_answers_topics",
        Columns(("question_title", "question_content", "best_answer"), "topic"),
    ),
}
"""Hub data sets that a task may name without saying where they are.

``amazon_reviews_5`` is the English part of another sample of Amazon reviews than the one published
protocols use, whose five-class form is not on the hub as a plain data set.
"""

_PLACES = ("path", "hub", "packaged")
_KEYS = ("name", *_PLACES, "text_column", "label_column", "splits", "classes")


def parse_tasks(entries: Sequence[str | Path | Mapping[str, object]]) -> list[TaskSource]:
    """Return the source of each entry of a stream; see `parse_task`.

    Raises:
        DataError: An entry is wrong, there is none, or a name is used twice.
    """
    if not entries:
        raise DataError("tasks: the list is empty; name at least one task")
    sources = [parse_task(entry) for entry in entries]
    positions: dict[str, int] = {}
    for position, source in enumerate(sources, start=1):
        if source.name in positions:
            raise DataError(
                f"tasks: the name {source.name!r} is used twice, by entries "
                f"{positions[source.name]} and {position}; give one of them another with "
                "{name: ...}"
            )
        positions[source.name] = position
    return sources


def parse_task(entry: str | Path | Mapping[str, object]) -> TaskSource:
    """Return where a task comes from; nothing is read yet.

    Args:
        entry: The name of a packaged corpus or of one of `HUB_TASKS`, the path of a local folder
            (its last part names the task), or a mapping with one of ``path``, ``hub`` and
            ``packaged`` and, if wanted, ``name``, ``text_column`` (one or a list),
            ``label_column``, ``splits`` (from train, validation and test to other names) and
            ``classes`` (the only ones to take).

    Raises:
        DataError: The entry is not one of these.
    """
    if isinstance(entry, Mapping):
        source = _from_mapping(entry)
        return OnlyClasses(source, _classes(entry)) if "classes" in entry else source
    if not isinstance(entry, str | Path):
        raise DataError(
            f"tasks: {entry!r} is a {type(entry).__name__}; expected a name, a path or a mapping"
        )
    text = str(entry)
    named = text in PACKAGED or text in HUB_TASKS
    folder = isinstance(entry, Path) or os.sep in text or "/" in text
    if named and not folder and _is_folder(text):
        place = "packaged" if text in PACKAGED else "hub"
        raise DataError(
            f"tasks: {text!r} is both a known task and a folder here; write "
            f"{os.curdir}{os.sep}{text} for the folder, or {{{place}: {text}}} for the known task"
        )
    if text in PACKAGED:
        return PackagedSource(text, text)
    if text in HUB_TASKS:
        return HubSource(text, *HUB_TASKS[text])
    if folder or (text and _is_folder(text)):
        return _from_mapping({"path": text})
    names = (*PACKAGED, *HUB_TASKS)
    raise DataError(
        f"tasks: no task is called {text!r}{_nearest(text, names)}; the names are "
        f"{', '.join(names)}, and a local folder is a path such as "
        f"{os.curdir}{os.sep}{text}"
    )


def spelled_out(entry: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry as a mapping that means the same task, for keys to be added."""
    if isinstance(entry, Mapping):
        return dict(entry)
    text = str(entry)
    if text in PACKAGED:
        return {"packaged": text}
    return {"hub": text} if text in HUB_TASKS else {"path": text}


def _from_mapping(entry: Mapping[str, object]) -> TaskSource:
    for key in entry:
        if key not in _KEYS:
            raise DataError(
                f"tasks: {dict(entry)} has the unknown key {key!r}{_nearest(str(key), _KEYS)}; "
                f"the keys are {', '.join(_KEYS)}"
            )
    places = [key for key in _PLACES if key in entry]
    if len(places) != 1:
        raise DataError(
            f"tasks: {dict(entry)} has {' and '.join(places) or 'no place'}; give exactly one of "
            f"{', '.join(_PLACES)}"
        )
    place = places[0]
    where = _string(entry, place)
    if place == "packaged":
        return _packaged(entry, where)
    if place == "hub":
        known = HUB_TASKS.get(where) or next(
            (task for task in HUB_TASKS.values() if task.dataset == where),
            _HubTask(where, Columns()),
        )
        name = _name(entry, where.rstrip("/").rpartition("/")[2])
        return HubSource(name, known.dataset, _columns(entry, known.columns), _splits(entry))
    folder = Path(where).expanduser()
    name = _name(entry, folder.name or folder.resolve().name)
    return FolderSource(name, folder, _columns(entry, Columns()), _splits(entry))


def _packaged(entry: Mapping[str, object], corpus: str) -> PackagedSource:
    if corpus not in PACKAGED:
        raise DataError(
            f"tasks: no packaged corpus is called {corpus!r}{_nearest(corpus, PACKAGED)}; there "
            f"are {', '.join(PACKAGED)}"
        )
    for key in ("text_column", "label_column", "splits"):
        if key in entry:
            raise DataError(
                f"tasks: {key} has no effect on the packaged corpus {corpus}; remove it"
            )
    return PackagedSource(_name(entry, corpus), corpus)


def _name(entry: Mapping[str, object], default: str) -> str:
    return _string(entry, "name") if "name" in entry else default


def _columns(entry: Mapping[str, object], default: Columns) -> Columns:
    text = default.text
    if "text_column" in entry:
        named = entry["text_column"]
        several = named if isinstance(named, list | tuple) and named else [named]
        text = tuple(_string({"text_column": name}, "text_column") for name in several)
    label = _string(entry, "label_column") if "label_column" in entry else default.label
    return Columns(text, label)


def _splits(entry: Mapping[str, object]) -> dict[str, str]:
    splits = entry.get("splits", {})
    if not isinstance(splits, Mapping):
        raise DataError(f"tasks: splits is {splits!r}; expected a mapping such as {{test: dev}}")
    for split in splits:
        if split not in SPLITS:
            raise DataError(
                f"tasks: splits has the unknown key {split!r}{_nearest(str(split), SPLITS)}; the "
                f"keys are {', '.join(SPLITS)}"
            )
    return {split: _string(splits, split) for split in splits}


def _classes(entry: Mapping[str, object]) -> tuple[str, ...]:
    named = entry["classes"]
    if not isinstance(named, list | tuple) or len(set(named)) < 2:
        raise DataError(f"tasks: classes is {named!r}; expected a list of at least two class names")
    return tuple(_string({"classes": name}, "classes") for name in named)


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except OSError:  # longer than a name can be, or nobody may look
        return False


def _string(entry: Mapping[str, object], key: str) -> str:
    value = str(entry[key]) if isinstance(entry[key], Path) else entry[key]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"tasks: {key} is {value!r}; expected a string that is not blank")
    return value


def _nearest(given: str, valid: Sequence[str]) -> str:
    found = get_close_matches(given, valid, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""
