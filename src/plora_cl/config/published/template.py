"""A file of settings to start from: every setting with its meaning and its default."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from plora_cl.config.schema import settings_class
from plora_cl.methods.registry import techniques

_HEADER = """\
# Settings of plora-cl train. Begin with:
#   plora-cl train --config {path} --dry-run
#   plora-cl train --config {path}
# A line that begins with "# " and a setting has its default: remove the "# " to change it.
# Editors complete and check this file with the schema of: plora-cl settings --schema
"""
_FIRST = ("experiment_name", "model_name", "tasks", "epochs", "batch_size", "learning_rate")
"""Settings that nearly every run changes: they are written out."""

_TASKS = """\
# A task is a folder with train, test and perhaps validation as .jsonl, .csv or .parquet:
#   tasks:
#     - data/reviews
#     - {name: mails, path: data/mails, text_column: body, label_column: folder}
"""
_WIDTH = 98


def template(path: str, given: Mapping[str, Any]) -> str:
    """Return the content of a YAML file with every setting.

    Args:
        path: Of the file, for the comments in it.
        given: Settings to write out with these values; the others have their defaults.
    """
    lines = [_HEADER.format(path=path)]
    for title, names in _sections():
        lines.append(f"# --- {title} ---\n")
        for name in names:
            lines += _setting(name, settings_class().model_fields[name], given)
    return "\n".join(lines)


def _setting(name: str, field: FieldInfo, given: Mapping[str, Any]) -> Iterator[str]:
    is_written = name in given or name in _FIRST
    value = yaml.safe_dump(
        {name: to_jsonable_python(given.get(name, field.default))},
        sort_keys=False,
        allow_unicode=True,
        width=_WIDTH,
    )
    about = textwrap.fill(field.description or "", _WIDTH - 3, break_on_hyphens=False)
    mark = "" if is_written else "# "
    yield textwrap.indent(about, "#  ") + ("\n" + _TASKS.rstrip() if name == "tasks" else "")
    yield textwrap.indent(value, mark)


def _sections() -> Iterator[tuple[str, list[str]]]:
    """Yield the title of each group of settings and their names, those of runs first."""
    titled = {technique.settings: technique.title for technique in techniques()}
    fields = settings_class().model_fields
    for group in reversed(settings_class().__mro__):
        names = [name for name in vars(group).get("__annotations__", {}) if name in fields]
        if names:
            about = (group.__doc__ or group.__name__).partition(".")[0]
            yield titled.get(group, about), names
