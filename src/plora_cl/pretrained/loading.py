"""Loads pretrained models. Code that comes with a model never runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plora_cl.errors import ModelError
from plora_cl.pretrained.quiet import quiet_gguf_loading, quiet_loading
from plora_cl.wording import nearest

_CONFIG = "config.json"
_POSITIONS = ("position_embeddings", "embed_positions", "wpe")
_IMPLEMENTATIONS = ("attn_implementation", "_attn_implementation", "experts_implementation")


def load_pretrained(
    factory: Any,
    location: str,
    *,
    asked_as: str,
    advice: str,
    gguf_file: str | None = None,
    **options: Any,
) -> Any:
    """Return what ``factory`` loads from ``location``, without running code that comes with it.

    Nobody is asked whether to trust such code: a model of an architecture that transformers does
    not have is refused, and so is one whose configuration names compute kernels on the hub.
    Pickled weights are read without executing what they name (``weights_only``).

    Args:
        factory: One of the ``Auto`` classes of transformers.
        location: Hub id or local folder.
        asked_as: The setting and its value, for messages.
        advice: What to give instead, for messages.
        gguf_file: Name of the GGUF file in ``location``, if it is one.
        options: Further arguments of ``from_pretrained``.

    Raises:
        ModelError: It cannot be loaded, asks for code of its own, or is an adapter.
    """
    quiet = quiet_loading if gguf_file is None else quiet_gguf_loading
    if gguf_file is not None:
        options["gguf_file"] = gguf_file
    try:
        with quiet():
            _require_reachable(location)
            if gguf_file is None and hasattr(factory, "from_config"):  # a model, not a tokenizer
                refuse_kernels(location)
            loaded = factory.from_pretrained(location, trust_remote_code=False, **options)
    except (MemoryError, ModelError):
        raise
    except Exception as error:  # configuration, vocabulary and weights raise errors of any type
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{asked_as}: {location} asks for Python code of its own (auto_map in its "
                "configuration), and plora-cl never runs code that comes with a model; choose one "
                "of an architecture that is part of transformers"
            ) from error
        raise ModelError(
            f"{asked_as}: cannot load it: {first_line(error)} ({_nearby(location) or advice})"
        ) from error
    if getattr(loaded, "_hf_peft_config_loaded", False):
        raise ModelError(
            f"{asked_as}: {location} is an adapter of another model; merge it into that model "
            "(merge_and_unload of PEFT) and give the folder of the result"
        )
    return loaded


def without_pooler(encoder: Any) -> Any:
    """Return ``encoder`` after its pooler is removed: the classifier has its own pooling."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


def longest_input(model: Any) -> int | None:
    """Return how many tokens a model has absolute positions for, None where nothing limits them.

    RoBERTa and its kin count positions from behind the padding index, so that 514 of them serve
    512 tokens. Relative and rotary positions have no end. What a tokenizer says of itself, often a
    number without meaning, does not count.

    Args:
        model: As transformers loads it.
    """
    limits = []
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if name.rpartition(".")[2] in _POSITIONS and weight is not None and weight.ndim == 2:
            padding = getattr(module, "padding_idx", None)
            limits.append(weight.shape[0] - (0 if padding is None else padding + 1))
    stated = getattr(model.config, "max_position_embeddings", None)
    if limits and isinstance(stated, int) and stated > 0:
        limits.append(stated)  # some have spare positions
    return min(limits, default=None)


def first_line(error: Exception) -> str:
    """Return the first line of the message of ``error``, or its kind where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _nearby(location: str) -> str | None:
    """Return what was perhaps meant where a folder with a model has nearly the same name."""
    path = Path(location)
    try:
        if path.exists():
            return None
        there = [folder.name for folder in path.parent.iterdir() if (folder / _CONFIG).is_file()]
    except (OSError, ValueError):
        return None
    meant = nearest(path.name, there)
    if meant is None:
        return None
    return f"did you mean {'' if path.is_absolute() else './'}{path.parent / meant}?"


def _require_reachable(location: str) -> None:
    """Fail at once for a model of the hub that is not in the cache while nothing can be fetched.

    The client of the hub would try for half a minute, most often for a folder that was mistyped.
    """
    if Path(location).exists():
        return
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        if not isinstance(try_to_load_from_cache(location, _CONFIG), str):
            get_hf_file_metadata(hf_hub_url(location, _CONFIG))
    except (HfHubHTTPError, OfflineModeIsEnabled, ValueError):
        return  # an answer, or no attempt: whoever loads it says what that means
    except Exception as error:  # of the HTTP client, which changes from version to version
        raise ConnectionError(
            f"there is no such folder, and the model hub cannot be reached: {first_line(error)}"
        ) from error


def refuse_kernels(location: str) -> None:
    """Refuse a configuration that has attention or experts computed by code from the hub."""
    from transformers import PreTrainedConfig

    config, _ = PreTrainedConfig.get_config_dict(location)
    for name, value in _entries(config):
        if name in _IMPLEMENTATIONS and "/" in str(value):
            raise ModelError(
                f"{location}: {name} in its configuration names code on the hub, {str(value)!r}, "
                "and plora-cl never runs code that comes with a model; remove the entry"
            )


def _entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        yield name, value
        if isinstance(value, Mapping):
            yield from _entries(value)
