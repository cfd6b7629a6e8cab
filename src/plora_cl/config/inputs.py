"""Whether tasks and models are there, told before anything is fetched or takes long to load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from plora_cl.bounded_reading import parse_json, read_small
from plora_cl.config.fields import SettingFields
from plora_cl.data.sources.declaration import parse_tasks
from plora_cl.data.sources.presence import require_there
from plora_cl.errors import DataError, ModelError, SettingsError
from plora_cl.generation.locations import place_of
from plora_cl.model.locations import resolve_packaged

_MOST_BYTES = 16 << 20
_FOLDER_OF = {
    "model_name": "an encoder",
    "generation_model": "a language model",
}


def require_inputs(runs: Iterable[SettingFields]) -> None:
    """Look at the local folders, files and packages that runs of these settings begin with.

    What is on a hub is not looked for.

    Raises:
        SettingsError: Something is not there or cannot be read; lists every such problem once.
    """
    problems = dict.fromkeys(problem for settings in runs for problem in _problems(settings))
    if problems:
        raise SettingsError(list(problems))


def _problems(settings: SettingFields) -> Iterator[str]:
    try:
        sources = parse_tasks(settings.tasks)
    except DataError as error:
        yield str(error)
        sources = []
    for source in sources:
        try:
            require_there(source)
        except DataError as error:
            yield str(error)
    try:
        _require_model("model_name", resolve_packaged(settings.model_name))
    except ModelError as error:
        yield str(error)
    if settings.use_replay:
        try:
            place = place_of(settings.generation_model)
            if place.gguf_file is None:
                _require_model("generation_model", place.location)
        except ModelError as error:
            yield str(error)


def _require_model(setting: str, name: str) -> None:
    """Refuse what can only be a folder and holds no model; another name may be one on the hub."""
    folder = Path(name)
    try:
        if not folder.is_dir():
            if folder.exists() or _can_only_be_a_path(name):
                raise ModelError(
                    f"{setting}: {name!r} is not a folder; expected that of {_FOLDER_OF[setting]}, "
                    "with a config.json, or a hub id such as distilbert-base-uncased"
                )
            return
        config = parse_json(read_small(folder / "config.json", _MOST_BYTES))
    except FileNotFoundError as error:
        raise ModelError(
            f"{setting}: there is no config.json in {name!r}; expected the folder of "
            f"{_FOLDER_OF[setting]}, as save_pretrained writes it"
        ) from error
    except OSError as error:
        raise ModelError(f"{setting}: {name!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{setting}: {folder / 'config.json'} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{setting}: {folder / 'config.json'} holds no JSON object")


def _can_only_be_a_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or name.endswith("/") or name.count("/") > 1
