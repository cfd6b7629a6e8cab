"""The flags of ``plora-cl train``: a short table, everything else goes through ``--set``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import NamedTuple

import yaml

from plora_cl.cli.parser import Parser
from plora_cl.config.fields import SettingFields
from plora_cl.config.presets import preset_names


def _whole(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text  # the schema says what is wrong with it


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


class _Flag(NamedTuple):
    """A flag that sets the setting of the same name."""

    setting: str
    metavar: str
    parse: Callable[[str], object] = str


_GROUPS = {
    "experiment": (_Flag("experiment_name", "NAME"), _Flag("experiment_dir", "FOLDER")),
    "checkpoints": (
        _Flag("checkpoint_every", "STEPS", _whole),
        _Flag("keep_last_n_checkpoints", "N", _whole),
    ),
    "model and tasks": (
        _Flag("model_name", "NAME-OR-FOLDER"),
        _Flag("tasks", "NAME-OR-FOLDER"),
        _Flag("max_train_examples", "N", _whole),
        _Flag("max_eval_examples", "N", _whole),
        _Flag("lora_r", "RANK", _whole),
        _Flag("lora_alpha", "SCALE", _whole),
    ),
    "training": (
        _Flag("epochs", "N", _whole),
        _Flag("batch_size", "N", _whole),
        _Flag("learning_rate", "RATE"),
        _Flag("seed", "N", _whole),
        _Flag("device", "DEVICE"),
        _Flag("precision", "{fp32,bf16,fp16}"),
    ),
    "methods": (
        _Flag("lambda_ewc", "STRENGTH"),
        _Flag("lambda_ortho", "STRENGTH"),
        _Flag("replay_ratio", "RATIO"),
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
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    groups = {title: parser.add_argument_group(title) for title in ("settings", *_GROUPS)}
    _add_sources(groups["settings"])
    for title, flags in _GROUPS.items():
        for flag in flags:
            groups[title].add_argument(
                flag_of(flag.setting),
                metavar=flag.metavar,
                type=flag.parse,
                nargs="+" if flag.setting == "tasks" else None,
                help=_help(flag.setting),
            )
    _add_resuming(groups["checkpoints"])
    for setting, title in _SWITCHES.items():
        groups[title].add_argument(
            flag_of(setting), dest=setting, action="store_true", help=_help(setting)
        )
        groups[title].add_argument(
            flag_of(setting, on=False), dest=setting, action="store_false", help="switch it off"
        )
    return parser


def flag_of(setting: str, *, on: bool = True) -> str:
    """Return the flag that sets ``setting``, or switches it off."""
    name = setting if on else f"no_{setting.removeprefix('use_')}"
    return f"--{name.replace('_', '-')}"


def flag_settings() -> list[str]:
    """Return the settings that have a flag of their own."""
    return [*(flag.setting for flags in _GROUPS.values() for flag in flags), *_SWITCHES]


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
        "--max-time",
        metavar="TIME",
        type=_seconds,
        help="stop at the next safe instant after so long, with exit code 75: 5400, 90m, 1h30m or "
        "1:30:00",
    )
    group.add_argument(
        "--quiet", action="store_true", help="show nothing but notes and errors while training"
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
