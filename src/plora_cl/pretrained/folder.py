"""Check that a folder holds a pretrained model, without loading it."""

from __future__ import annotations

from pathlib import Path

from plora_cl.bounded_reading import parse_json, read_small
from plora_cl.errors import ModelError

_MOST_BYTES = 16 << 20


def require_model_folder(setting: str, name: str, kind: str) -> None:
    """Refuse a path that holds no model; any other name may be one on the hub.

    Args:
        setting: Name of the setting, for messages.
        name: Its value.
        kind: What it has to be, for instance ``an encoder``.

    Raises:
        ModelError: ``name`` is a path and not the folder of a model.
    """
    folder = Path(name)
    try:
        if not folder.is_dir():
            if folder.exists() or _can_only_be_a_path(name):
                raise ModelError(
                    f"{setting}: {name!r} is not a folder; expected that of {kind}, with a "
                    "config.json, or a hub id such as distilbert-base-uncased"
                )
            return
        config = parse_json(read_small(folder / "config.json", _MOST_BYTES))
    except FileNotFoundError as error:
        raise ModelError(
            f"{setting}: there is no config.json in {name!r}; expected the folder of {kind}, as "
            "save_pretrained writes it"
        ) from error
    except OSError as error:
        raise ModelError(f"{setting}: {name!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{setting}: {folder / 'config.json'} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{setting}: {folder / 'config.json'} holds no JSON object")


def _can_only_be_a_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or name.endswith("/") or name.count("/") > 1
