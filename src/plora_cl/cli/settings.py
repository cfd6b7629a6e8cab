"""``plora-cl settings`` and ``plora-cl init``: what can be set, and a file to start from."""

from __future__ import annotations

import json
import shlex
from argparse import Namespace
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import to_jsonable_python

from plora_cl.checkpoint.store.output_files import recording
from plora_cl.cli.command import Answer, argument, command
from plora_cl.config.errors import unknown_setting
from plora_cl.config.fields import impacts, setting_fields
from plora_cl.config.presets import preset_names, read_preset
from plora_cl.config.published.json_schema import settings_schema
from plora_cl.config.published.template import template
from plora_cl.errors import OutputError, SettingsError

_NEVER = "remove it, or name another file; plora-cl init never overwrites one"


@command(
    "init",
    "Write a YAML file with every setting, its meaning and its default, to start from.",
    argument("file", metavar="FILE.yaml", type=Path, help="the file; an existing one is refused"),
    argument("--preset", metavar="NAME", help=f"start from {', '.join(preset_names())}"),
    examples=["reviews.yaml", "first.yaml --preset quickstart"],
    ok="the file was written",
)
def init(arguments: Namespace) -> Answer:
    """Write a file of settings."""
    path: Path = arguments.file
    if path.suffix not in (".yaml", ".yml"):
        raise SettingsError([f"{path}: not a YAML file; expected, for instance, reviews.yaml"])
    given = {} if arguments.preset is None else read_preset(arguments.preset)
    text = template(str(path), {**given, "experiment_name": path.stem})
    with recording(path):
        try:
            file = path.open("x", encoding="utf-8")
        except FileExistsError:
            raise OutputError(f"{path} exists; {_NEVER}") from None
        with file:
            file.write(text)
    following = shlex.join(["plora-cl", "train", "--config", str(path), "--dry-run"])
    return Answer({"file": str(path)}, [f"Written: {path}", f"Edit its tasks; then: {following}"])


@command(
    "settings",
    "Show what can be set in YAML, with --set and as keywords of plora_cl.load_settings: every "
    "setting with its default, or some of them in full.",
    argument("names", metavar="SETTING", nargs="*", help="a setting to explain; all by default"),
    argument("--schema", action="store_true", help="print the JSON Schema of a file of settings"),
    examples=["learning_rate use_ewc", "--schema > plora-cl.schema.json"],
    ok="they were shown",
)
def show_settings(arguments: Namespace) -> Answer:
    """Show settings."""
    if arguments.schema:
        if arguments.names:
            raise SettingsError(["--schema has every setting; leave the names out"])
        return Answer(settings_schema(), json.dumps(settings_schema(), indent=2).splitlines())
    fields = setting_fields().model_fields
    strangers = [name for name in arguments.names if name not in fields]
    if strangers:
        raise SettingsError([f"{name}: {unknown_setting(name)}" for name in strangers])
    schema = settings_schema()["properties"]
    names = arguments.names or list(fields)
    document = {name: {**schema[name], "resume": impacts()[name].name.lower()} for name in names}
    shown = (_lines(name, about, whole=bool(arguments.names)) for name, about in document.items())
    return Answer(document, chain.from_iterable(shown))


def _lines(name: str, about: Mapping[str, Any], *, whole: bool) -> Iterator[str]:
    yield f"{name}: {as_yaml(about['default'])}"
    yield f"    {about['description']}"
    for key, value in about.items():
        if whole and key not in ("default", "description"):
            yield f"    {key}: {as_yaml(value)}"


def as_yaml(value: object) -> str:
    """Return a value on one line, as YAML writes it."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    plain = to_jsonable_python(value)
    dumped = yaml.safe_dump(plain, default_flow_style=True, width=10_000)
    return dumped.removesuffix("...\n").strip()
