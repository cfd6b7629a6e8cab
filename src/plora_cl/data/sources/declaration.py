"""From an entry of ``tasks`` to the source of its texts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plora_cl.data.sources.base import Columns, TaskSource
from plora_cl.data.sources.classes import OnlyClasses
from plora_cl.data.sources.entry import (
    Declared,
    Opener,
    added_places,
    place_of,
    split_place,
    task_name,
)
from plora_cl.data.sources.folder import FolderSource
from plora_cl.data.sources.frames import FRAMES, FrameSource, given_again
from plora_cl.data.sources.hub import HubSource
from plora_cl.data.sources.packaged import PACKAGED, PackagedSource
from plora_cl.errors import DataError
from plora_cl.wording import nearest


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


def parse_tasks(
    entries: Sequence[str | Path | Mapping[str, Any]], others: Collection[str] = ()
) -> list[TaskSource]:
    """Return the source of each entry of a stream; see `parse_task`.

    Args:
        entries: The stream.
        others: Further names that an entry could have had, for messages.

    Raises:
        DataError: An entry names no task.
    """
    return [parse_task(entry, others) for entry in entries]


def parse_task(entry: str | Path | Mapping[str, Any], others: Collection[str] = ()) -> TaskSource:
    """Return where the texts of a task are; nothing is read yet.

    Args:
        entry: The name of a packaged corpus or of one of `HUB_TASKS`, the path of a local folder, a
            ``KEY:VALUE`` of an installed package, or a valid `TaskEntry`.
        others: Further names that it could have had, for messages.

    Raises:
        DataError: It names no task, or more than one.
    """
    spelled = dict(entry) if isinstance(entry, Mapping) else _known(entry, others)
    key = place_of(spelled)
    named = spelled.get("text_column")
    several = named if isinstance(named, list | tuple) or named is None else (named,)
    declared = Declared(
        name=task_name(spelled),
        where=str(spelled[key]),
        text_column=None if several is None else tuple(several),
        label_column=spelled.get("label_column"),
        splits=spelled.get("splits", {}),
    )
    source = {**_OPENERS, **(added_places() if key not in _OPENERS else {})}[key](declared)
    return OnlyClasses(source, tuple(spelled["classes"])) if "classes" in spelled else source


def _known(entry: str | Path, others: Collection[str]) -> dict[str, Any]:
    """Return an entry spelled out, if it says where its task is and can mean one task alone."""
    text = str(entry)
    is_path = isinstance(entry, Path) or "/" in text
    spelled = spelled_out(text)
    if is_path and split_place(text) is None:
        return {"path": text}
    if "path" not in spelled:
        if text in (*PACKAGED, *HUB_TASKS) and _is_folder(text):
            raise DataError(
                f"tasks: {text!r} is both a known task and a folder here; write "
                f"./{text} for the folder, or {{{place_of(spelled)}: {text}}} for the known task"
            )
        return spelled
    if text and _is_folder(text):
        return spelled
    names = (*others, *PACKAGED, *HUB_TASKS)
    raise DataError(
        f"tasks: no task is called {text!r}{_nearest(text, names)}; the names are "
        f"{', '.join(names)}, and a local folder is a path such as ./{text}"
    )


def spelled_out(entry: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry as a mapping that means the same task, for keys to be added."""
    if isinstance(entry, Mapping):
        return dict(entry)
    text = str(entry)
    if text in PACKAGED:
        return {"packaged": text}
    if text in HUB_TASKS:
        return {"hub": text}
    added = split_place(text)
    return {added[0]: added[1]} if added else {"path": text}


def _folder(declared: Declared) -> FolderSource:
    folder = Path(declared.where).expanduser()
    return FolderSource(declared.name, folder, declared.columns(), declared.splits)


def _hub(declared: Declared) -> HubSource:
    known = HUB_TASKS.get(declared.where) or next(
        (task for task in HUB_TASKS.values() if task.dataset == declared.where),
        _HubTask(declared.where, Columns()),
    )
    columns = declared.columns(known.columns)
    return HubSource(declared.name, known.dataset, columns, declared.splits)


def _packaged(declared: Declared) -> PackagedSource:
    corpus = declared.where
    if corpus not in PACKAGED:
        raise DataError(
            f"tasks: no packaged corpus is called {corpus!r}{_nearest(corpus, PACKAGED)}; there "
            f"are {', '.join(PACKAGED)}"
        )
    for key in ("text_column", "label_column", "splits"):
        if getattr(declared, key):
            raise DataError(
                f"tasks: {key} has no effect on the packaged corpus {corpus}; remove it"
            )
    return PackagedSource(declared.name, corpus)


def _frames(declared: Declared) -> FrameSource:
    return given_again(declared.name, declared.where, declared.columns())


_OPENERS: Mapping[str, Opener] = {
    "path": _folder,
    "hub": _hub,
    "packaged": _packaged,
    FRAMES: _frames,
}


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except OSError:  # longer than a name can be, or nobody may look
        return False


def _nearest(given: str, valid: Sequence[str]) -> str:
    meant = nearest(given, valid)
    return f" (did you mean {meant!r}?)" if meant else ""
