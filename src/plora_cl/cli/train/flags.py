"""The flags of ``plora-cl train``: a short table, everything else goes through ``--set``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from plora_cl.cli.parser import Parser
from plora_cl.config.errors import setting_names
from plora_cl.config.fields import SettingFields
from plora_cl.config.precedence import Resolved, resolve
from plora_cl.config.presets import preset_names
from plora_cl.config.yaml_file import parse


def _whole(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text  # the schema says what is wrong with it


def _tasks(text: str) -> object:
    """Return a name or folder as it is, and what is a YAML mapping, or list, as its value."""
    if not text.startswith(("{", "[")) or _is_there(text):
        return text
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not YAML: {error}; expected, quoted as one argument, for instance "
            "'{path: data/reviews, text_column: body}'"
        ) from error


def _is_there(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # longer than a name can be
        return False


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


class Flag(NamedTuple):
    """A flag that sets the setting of the same name."""

    setting: str
    metavar: str
    parse: Callable[[str], object] = str


_GROUPS = {
    "experiment": (Flag("experiment_name", "NAME"), Flag("experiment_dir", "FOLDER")),
    "checkpoints": (
        Flag("checkpoint_every", "STEPS", _whole),
        Flag("keep_last_n_checkpoints", "N", _whole),
    ),
    "model and tasks": (
        Flag("model_name", "NAME-OR-FOLDER"),
        Flag("tasks", "NAME-OR-FOLDER", _tasks),
        Flag("max_train_examples", "N", _whole),
        Flag("max_eval_examples", "N", _whole),
        Flag("lora_r", "RANK", _whole),
        Flag("lora_alpha", "SCALE", _whole),
    ),
    "training": (
        Flag("epochs", "N", _whole),
        Flag("batch_size", "N", _whole),
        Flag("learning_rate", "RATE"),
        Flag("seed", "N", _whole),
        Flag("device", "DEVICE"),
        Flag("precision", "{fp32,bf16,fp16}"),
    ),
    "methods": (
        Flag("lambda_ewc", "STRENGTH"),
        Flag("lambda_ortho", "STRENGTH"),
        Flag("replay_ratio", "RATIO"),
    ),
}
_SWITCHES = {
    "async_checkpoint": "checkpoints",
    "use_ewc": "methods",
    "use_orthogonal": "methods",
    "use_replay": "methods",
    "use_lateral": "methods",
    "use_router": "model and tasks",
    "task_adapters": "model and tasks",
    "joint": "training",
}
"""Settings that are on or off, and the group each belongs to."""

_OF_THE_FLOOR = (
    *("experiment_name", "experiment_dir", "model_name", "tasks", "max_train_examples"),
    *("max_eval_examples", "seed"),
)

_EXAMPLE = """\
example:
  plora-cl train --experiment-name demo --tasks data/news data/reviews --epochs 2
  plora-cl train --experiment-name demo --resume
"""


def train_parser() -> argparse.ArgumentParser:
    """Return the parser of ``plora-cl train``; what was not typed is not in its namespace."""
    parser = Parser(
        prog="plora-cl train",
        description="Learn a stream of text-classification tasks; stop anywhere, go on exactly.",
        epilog=_EXAMPLE + _other_settings(),
        argument_default=argparse.SUPPRESS,
    )
    parser.settings = setting_names()
    groups = {title: parser.add_argument_group(title) for title in ("settings", *_GROUPS)}
    _add_sources(groups["settings"])
    _add_training(groups["settings"])
    for title, flags in _GROUPS.items():
        for flag in flags:
            _add(groups[title], flag)
    _add_resuming(groups["checkpoints"])
    for setting, title in _SWITCHES.items():
        groups[title].add_argument(
            flag_of(setting), dest=setting, action="store_true", help=_help(setting)
        )
        groups[title].add_argument(
            flag_of(setting, on=False), dest=setting, action="store_false", help="switch it off"
        )
    return parser


def floor_parser() -> argparse.ArgumentParser:
    """Return the parser of ``plora-cl floor``; what was not typed is not in its namespace."""
    parser = Parser(
        prog="plora-cl floor",
        description="Learn each task alone with TF-IDF features and logistic regression: what a "
        "run has to be better than. The results stand in an experiment of their own, "
        "EXPERIMENT-NAME-floor unless --experiment-name says otherwise.",
        epilog="example:\n  plora-cl floor --config experiments/demo/config.yaml",
        argument_default=argparse.SUPPRESS,
    )
    parser.settings = setting_names()
    _add_sources(parser.add_argument_group("settings"))
    group = parser.add_argument_group("experiment and tasks")
    for flag in (flag for flags in _GROUPS.values() for flag in flags):
        if flag.setting in _OF_THE_FLOOR:
            _add(group, flag)
    return parser


def resolved(typed: Mapping[str, Any]) -> Resolved:
    """Return the settings that were asked for on the command line.

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
        assignments=typed.get("assignments", ()),
        resume=typed.get("resume", False),
    )


def flag_of(setting: str, *, on: bool = True) -> str:
    """Return the flag that sets ``setting``, or switches it off."""
    name = setting if on else f"no_{setting.removeprefix('use_')}"
    return f"--{name.replace('_', '-')}"


def flag_settings() -> list[str]:
    """Return the settings that have a flag of their own."""
    return [*(flag.setting for flags in _GROUPS.values() for flag in flags), *_SWITCHES]


def _add(group: argparse._ArgumentGroup, flag: Flag) -> None:
    group.add_argument(
        flag_of(flag.setting),
        metavar=flag.metavar,
        type=flag.parse,
        nargs="+" if flag.setting == "tasks" else None,
        help=_help(flag.setting),
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
        dest="assignments",
        metavar="PATH=VALUE",
        action="append",
        help="set any setting; the value is YAML (repeatable)",
    )
    group.add_argument(
        "--quiet", action="store_true", help="hide progress; the results are shown all the same"
    )


def _add_training(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max-time",
        metavar="TIME",
        type=_seconds,
        help="stop at the next safe instant after so long, with exit code 75: 5400, 90m, 1h30m or "
        "1:30:00",
    )


def _add_resuming(group: argparse._ArgumentGroup) -> None:
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--resume",
        nargs="?",
        const=True,
        metavar="auto|PATH",
        help="go on from the newest checkpoint, with the settings the experiment was started with; "
        "auto: start afresh where there is none; PATH: take that checkpoint",
    )
    either.add_argument(
        "--overwrite",
        action="store_true",
        help="remove the checkpoints of an earlier run of this name and start afresh",
    )
    group.add_argument(
        "--accept-changes",
        action="store_true",
        help="with --resume: go on although settings, data, libraries or the machine differ from "
        "the checkpoint in a way that changes the result; without it that is refused with exit "
        "code 2. What changed is shown and recorded in the run log",
    )


def _help(setting: str) -> str:
    field = SettingFields.model_fields[setting]
    return f"{field.description} (default: {_as_yaml(field.default)})".replace("%", "%%")


def _as_yaml(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return yaml.safe_dump(value).removesuffix("...\n").strip()


def _other_settings() -> str:
    flagged = set(flag_settings())
    lines = [
        f"  {name}: {_as_yaml(field.default)}\n      {field.description}"
        for name, field in SettingFields.model_fields.items()
        if name not in flagged
    ]
    return "\nsettings without a flag, for YAML and --set:\n" + "\n".join(lines)
