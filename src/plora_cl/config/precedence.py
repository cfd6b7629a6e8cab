"""Where settings come from, and which source wins."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import ValidationError

from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.config.assignment import assigned, split_assignment
from plora_cl.config.errors import contradiction_problems, field_problems, located
from plora_cl.config.fields import SettingFields, setting_fields
from plora_cl.config.locations import RECORD, anchored, experiment_recorded_in, found_again
from plora_cl.config.presets import read_preset
from plora_cl.config.record import Resume, recorded_in
from plora_cl.config.schema import Settings, as_recorded, recordable, settings_class
from plora_cl.config.yaml_file import MAX_BYTES, read_mapping
from plora_cl.errors import SettingsError

_HEADER_BYTES = 256  # of a record, more than its first line takes
_Recorded: TypeAlias = Callable[[Path], tuple[str, dict[Any, Any]]]
_PLACE = ("experiment_dir", "experiment_name")


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings and where they came from.

    Attributes:
        settings: Complete and consistent.
        given: Names of the settings that the user wrote, in a file or as a flag.
    """

    settings: Settings
    given: frozenset[str]


@dataclass(slots=True)
class _Layers:
    """Settings piled up from the weakest source to the strongest, and all that is wrong."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, source: str, values: Mapping[Any, Any], *, recorded: bool = False) -> None:
        try:
            setting_fields().model_validate(dict(values))
        except ValidationError as error:
            problems = field_problems(error, source)
            self.problems += map(_of_missing_package, problems) if recorded else problems
        for name, value in values.items():
            self.values[name] = value
            self.origins.pop(name, None)  # the most explicit one comes last
            self.origins[name] = source

    def read(self, reader: Callable[[], Mapping[Any, Any]]) -> Mapping[Any, Any]:
        try:
            return reader()
        except SettingsError as error:
            self.problems += error.problems
            return {}

    def settings(self) -> Settings:
        if self.problems:
            raise SettingsError(list(dict.fromkeys(self.problems)))
        try:
            found = settings_class().model_validate(self.values)
        except ValidationError as error:
            raise SettingsError(contradiction_problems(error, self.origins)) from error
        _require_recordable(found, self.origins)
        return found


def _require_recordable(settings: Settings, origins: Mapping[str, str]) -> None:
    """Refuse settings whose record could not be read back.

    Raises:
        SettingsError: It would be too long; names the setting that takes most of it.
    """
    # No character takes more than four times its bytes in JSON; paths become absolute.
    absolute = len(settings.tasks) * len(os.fsencode(Path.cwd()))
    if 4 * (len(settings.model_dump_json().encode()) + absolute) + _HEADER_BYTES <= MAX_BYTES:
        return
    size = len(dump(anchored(settings)).encode()) + _HEADER_BYTES
    if size > MAX_BYTES:
        sizes = {name: len(str(getattr(settings, name))) for name in type(settings).model_fields}
        longest = max(sizes, key=sizes.__getitem__)
        text = (
            f"takes most of settings whose {RECORD} would have {size} bytes; expected at most "
            f"{MAX_BYTES}: shorten it"
        )
        raise SettingsError([located(origins.get(longest, "settings"), longest, text)])


def resolve(
    *,
    preset: str | None = None,
    config: Path | None = None,
    flags: Mapping[str, tuple[str, object]] | None = None,
    assignments: Sequence[str] = (),
    resume: Resume = False,
) -> Resolved:
    """Put the settings of a run together.

    From the weakest source to the strongest: defaults; what the experiment was started with, if it
    is resumed (see `recorded_in`); the preset; the file; the flags.

    Args:
        preset: Name of settings that come with the library.
        config: YAML file. The ``config.yaml`` of an experiment means that experiment, wherever it
            has been moved; paths in any other file are relative to the working directory.
        flags: For each setting typed as a flag, the flag as it was typed and its value.
        assignments: ``dotted.path=value`` each; the value is YAML.
        resume: True or ``auto`` to resume the experiment, or the path of a checkpoint to resume
            from, which also names the experiment unless another source does.

    Raises:
        SettingsError: Something is unknown, ill-typed, out of range or contradictory; lists every
            such problem.
        CheckpointError: An experiment that is resumed has lost its record, and no checkpoint can be
            read.
    """
    layers = _Layers()
    typed = flags or {}
    recorded = cache(lambda folder: recorded_in(folder, resume))  # it may read every checkpoint
    packaged = layers.read(lambda: read_preset(preset)) if preset is not None else {}
    written = (
        layers.read(lambda: _file(config, recorded if resume else None))
        if config is not None
        else {}
    )
    sources: list[tuple[str, Mapping[Any, Any]]] = [
        (f"preset {preset}", packaged),
        (str(config), written),
        *((flag, {name: value}) for name, (flag, value) in typed.items()),
    ]
    split = [split_assignment(text, layers.problems) for text in assignments]
    if resume:
        asked: dict[Any, Any] = {}
        for _, values in sources:
            asked |= values
        asked |= {path: value for path, value in filter(None, split) if path in _PLACE}
        _add_recorded(layers, _resumed_folder(asked, resume), recorded)
    is_record = config is not None and experiment_recorded_in(config) is not None
    for source, values in sources:
        layers.add(source, values, recorded=is_record and values is written)
    for assignment in filter(None, split):
        _add_assignment(layers, *assignment, typed)
    paths = {path.partition(".")[0] for path, _ in filter(None, split)}
    return Resolved(layers.settings(), frozenset({*map(str, written), *typed, *paths}))


def _file(config: Path, recorded: _Recorded | None) -> Mapping[Any, Any]:
    folder = experiment_recorded_in(config)
    if folder is None:
        return read_mapping(config)
    if recorded is not None:
        return recorded(folder)[1]
    return as_recorded(found_again(read_mapping(config), folder))


def validate(values: Mapping[str, object], *, source: str = "settings") -> Settings:
    """Return settings with ``values`` in place of the defaults.

    Raises:
        SettingsError: Something is unknown, ill-typed, out of range or contradictory.
    """
    return layered([(source, values)])


def layered(sources: Sequence[tuple[str, Mapping[Any, Any]]]) -> Settings:
    """Return settings from several sources, each named for messages, the weakest first.

    Raises:
        SettingsError: Something is unknown, ill-typed, out of range or contradictory.
    """
    layers = _Layers()
    for source, values in sources:
        layers.add(source, values)
    return layers.settings()


def dump(settings: Settings) -> str:
    """Return every setting as YAML that `resolve` reads back to equal settings."""
    return yaml.dump(
        recordable(settings),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
    )


class _Dumper(yaml.SafeDumper):
    """Quotes unprintable characters, some of which PyYAML writes but reads back as others."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    )


_Dumper.add_representer(str, _represent_text)


def _add_recorded(layers: _Layers, folder: Path | None, recorded: _Recorded) -> None:
    if folder is None:
        return
    source, values = str(folder / RECORD), dict[Any, Any]()
    try:
        source, values = recorded(folder)
    except SettingsError as error:
        layers.problems += error.problems
    layers.add(source, values or found_again({}, folder), recorded=True)


def _of_missing_package(problem: str) -> str:
    """Return ``problem`` with what makes a recorded setting known again, and no list of others."""
    name, unknown, way_out = problem.partition(": unknown setting; ")
    if not unknown:
        return problem
    meant = f"; {way_out}" if way_out.startswith("did you mean") else ""
    return (
        f"{name}{unknown}if the run used an installed package that declares it, install that "
        f"again{meant}"
    )


def _resumed_folder(asked: Mapping[Any, Any], resume: bool | str) -> Path | None:
    if isinstance(resume, str) and resume != "auto":
        checkpoint = Path(resume)
        if len(checkpoint.parts) < 3 or ".." in checkpoint.parts:
            checkpoint = Path(os.path.realpath(checkpoint))  # also resolves a loop of links
        folder = checkpoint.parent
        return folder.parent if folder.name == "checkpoints" else None
    defaults = SettingFields()
    parent, name = (asked.get(place, getattr(defaults, place)) for place in _PLACE)
    if not (isinstance(parent, str) and isinstance(name, str)):
        return None  # reported as ill-typed
    folder = Path(parent) / name
    return folder if CheckpointStore(folder / "checkpoints").entries() else None


def _add_assignment(
    layers: _Layers, path: str, value: object, typed: Mapping[str, tuple[str, object]]
) -> None:
    if path in typed:
        flag = typed[path][0]
        layers.problems.append(f"--set: {path}: also given by {flag}; keep one of them")
        return
    layers.add("--set", assigned(layers.values, path, value, layers.problems))
