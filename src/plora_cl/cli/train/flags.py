"""The flags of ``plora-cl train``: a short table; ``--set`` takes every other setting."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import to_jsonable_python

from plora_cl.cli.parser import Parser
from plora_cl.cli.train.briefs import EXAMPLE, FLOOR_BRIEF, TRAIN_BRIEF
from plora_cl.config.errors import setting_names
from plora_cl.config.fields import setting_fields
from plora_cl.config.precedence import Resolved, resolve
from plora_cl.config.presets import preset_names, preset_title
from plora_cl.config.yaml_file import parse
from plora_cl.errors import ExtensionError
from plora_cl.methods.registry import origin, techniques
from plora_cl.technique import no_flag


def _whole(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text  # the schema says what is wrong with it


def _tasks(text: str) -> object:
    """Return a name or folder as it is, and what is a YAML mapping, or list, as its value."""
    # `Path.exists` raises for what is longer than a name can be.
    if not text.startswith(("{", "[")) or os.path.exists(text):  # noqa: PTH110
        return text
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not YAML: {error}; expected, quoted as one argument, for instance "
            "'{path: data/reviews, text_column: body}'"
        ) from error


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text) or re.fullmatch(
        r"(?:(\d+):)?(\d+):(\d+)", text
    )
    if not text or found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time; expected seconds, or a form like 90m, 1h30m or 1:30:00"
        )
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(3600 * hours + 60 * minutes + seconds)


_GROUPS: Mapping[str, Mapping[str, str]] = {
    "experiment": {"experiment_name": "NAME", "experiment_dir": "FOLDER"},
    "checkpoints": {
        "checkpoint_every": "STEPS",
        "keep_last_n_checkpoints": "N",
        "async_checkpoint": "",
    },
    "model and tasks": {
        "model_name": "NAME-OR-FOLDER",
        "tasks": "NAME-OR-FOLDER",
        "max_train_examples": "N",
        "max_eval_examples": "N",
        "lora_r": "RANK",
        "lora_alpha": "SCALE",
        "use_router": "",
        "task_adapters": "",
    },
    "training": {
        "epochs": "N",
        "batch_size": "N",
        "learning_rate": "RATE",
        "seed": "N",
        "device": "DEVICE",
        "precision": "{fp32,bf16,fp16}",
        "joint": "",
    },
}
"""The settings with a flag of their own, by group, and the name of the value in the help.

A setting that is on or off has no value but two flags. Those of techniques are in the registry.
"""

_OF_THE_FLOOR = (
    *("experiment_name", "experiment_dir", "model_name", "tasks", "max_train_examples"),
    *("max_eval_examples", "seed"),
)

_ASSIGNMENTS = "--set"  # no setting has this name


def train_parser() -> argparse.ArgumentParser:
    """Return the parser of ``plora-cl train``; what was not typed is not in its namespace."""
    parser = Parser(
        prog="plora-cl train",
        description="Learn a stream of text-classification tasks; stop any time, resume exactly.",
        brief=TRAIN_BRIEF,
        epilog=f"{_presets()}\n{_other_settings()}\n\n{EXAMPLE}",
        argument_default=argparse.SUPPRESS,
    )
    parser.settings = setting_names()
    general = parser.add_argument_group("settings")
    _add_sources(general)
    general.add_argument(
        "--dry-run",
        action="store_true",
        help="show tasks, steps, checkpoints and disk that the run would take, and start nothing",
    )
    general.add_argument("--json", action="store_true", help="with --dry-run: print JSON")
    general.add_argument(
        "--max-time",
        metavar="TIME",
        type=_seconds,
        help="stop at the next safe instant after so long, with exit code 75: 5400, 90m, 1h30m or "
        "1:30:00",
    )
    for title, flags in _groups().items():
        group = parser.add_argument_group(title)
        if title == "checkpoints":
            _add_resuming(group)
        for setting, metavar in flags.items():
            try:
                _add(group, setting, metavar)
            except argparse.ArgumentError as error:  # the flags of this package are distinct
                technique = next(t for t in techniques() if setting in t.setting_names)
                raise ExtensionError(
                    f"{origin(technique)}: its setting {setting!r} takes a flag that exists "
                    f"({error}); rename it there, or uninstall the package"
                ) from error
    return parser


def floor_parser() -> argparse.ArgumentParser:
    """Return the parser of ``plora-cl floor``; what was not typed is not in its namespace."""
    parser = Parser(
        prog="plora-cl floor",
        description="Learn each task alone with TF-IDF features and logistic regression: what a "
        "run has to be better than. The results stand in an experiment of their own, "
        "EXPERIMENT-NAME-floor unless --experiment-name says otherwise. The floor tokenises as "
        "the run would, and needs the tokenizer of its encoder: give its --model-name.",
        brief=FLOOR_BRIEF,
        epilog="example:\n  plora-cl floor --config experiments/demo/config.yaml",
        argument_default=argparse.SUPPRESS,
    )
    parser.settings = setting_names()
    _add_sources(parser.add_argument_group("settings"))
    group = parser.add_argument_group("experiment and tasks")
    for setting, metavar in (flag for flags in _GROUPS.values() for flag in flags.items()):
        if setting in _OF_THE_FLOOR:
            _add(group, setting, metavar)
    return parser


def resolved(typed: Mapping[str, Any]) -> Resolved:
    """Return the settings of a command line.

    Args:
        typed: Namespace of `train_parser` or `floor_parser`.

    Raises:
        SettingsError: Something is unknown, ill-typed, out of range or contradictory.
    """
    values = {name: typed[name] for name in flag_settings() if name in typed}
    if "tasks" in values:
        parts = (part if isinstance(part, list) else [part] for part in values["tasks"])
        values["tasks"] = [entry for part in parts for entry in part]
    return resolve(
        preset=typed.get("preset"),
        config=Path(typed["config"]) if "config" in typed else None,
        flags={name: (flag_of(name, on=v is not False), v) for name, v in values.items()},
        assignments=typed.get(_ASSIGNMENTS, ()),
        resume=typed.get("resume", False),
    )


def flag_of(setting: str, *, on: bool = True) -> str:
    """Return the flag that sets ``setting``, or switches it off."""
    return f"--{setting.replace('_', '-')}" if on else no_flag(setting)


def flag_settings() -> list[str]:
    """Return the settings that have a flag of their own."""
    return [setting for flags in _groups().values() for setting in flags]


def _groups() -> dict[str, Mapping[str, str]]:
    valued = {name: metavar for t in techniques() for name, metavar in t.flags.items()}
    return {**_GROUPS, "methods": valued | {technique.switch: "" for technique in techniques()}}


def _add(group: argparse._ArgumentGroup, setting: str, metavar: str) -> None:
    kind = setting_fields().model_fields[setting].annotation
    if kind is bool:
        off, switch_off = flag_of(setting, on=False), "switch it off"
        group.add_argument(flag_of(setting), dest=setting, action="store_true", help=_help(setting))
        group.add_argument(off, dest=setting, action="store_false", help=switch_off)
        return
    group.add_argument(
        flag_of(setting),
        metavar=metavar,
        type=_tasks if setting == "tasks" else _whole if kind is int else str,
        nargs="+" if setting == "tasks" else None,
        help=_help(setting),
    )


def _add_sources(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--config", metavar="FILE", help="read settings from a YAML file")
    group.add_argument(
        "--preset",
        metavar="NAME",
        help=f"start from packaged settings: {', '.join(preset_names())}",
    )
    group.add_argument(
        "--set",
        dest=_ASSIGNMENTS,
        metavar="NAME=VALUE",
        action="append",
        help="set any setting, or a part of one such as tasks.0; the value is YAML (repeatable)",
    )
    group.add_argument(
        "--quiet", action="store_true", help="hide progress; the results are shown all the same"
    )


def _add_resuming(group: argparse._ArgumentGroup) -> None:
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--resume",
        nargs="?",
        const=True,
        metavar="auto|PATH",
        help="resume from the newest checkpoint, with the settings of the experiment; auto: start "
        "afresh if there is none; PATH: resume from that checkpoint, FOLDER@NAME.pt, or NAME.pt of "
        "the experiment",
    )
    either.add_argument(
        "--overwrite",
        action="store_true",
        help="remove the checkpoints of an earlier run of this name and start afresh",
    )
    group.add_argument(
        "--accept-changes",
        action="store_true",
        help="with --resume: accept settings, data, libraries or a machine that change the result; "
        "without it such a change is refused with exit code 2. Changes are shown and recorded in "
        "the run log",
    )


def _help(setting: str) -> str:
    field = setting_fields().model_fields[setting]
    return f"{field.description} (default: {_as_yaml(field.default)})".replace("%", "%%")


def _as_yaml(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return yaml.safe_dump(to_jsonable_python(value)).removesuffix("...\n").strip()


def _presets() -> str:
    lines = [f"  {name}: {preset_title(name)}" for name in preset_names()]
    return "presets:\n" + "\n".join(lines) + "\n"


def _other_settings() -> str:
    flagged = set(flag_settings())
    lines = [
        f"  {name}: {_as_yaml(field.default)}\n      {field.description}"
        for name, field in setting_fields().model_fields.items()
        if name not in flagged
    ]
    return "settings without a flag, for YAML and --set:\n" + "\n".join(lines)
