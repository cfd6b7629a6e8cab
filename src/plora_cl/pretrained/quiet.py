"""Silence while transformers loads something: the run has its own progress and its own errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from transformers.utils import logging as transformers_logging

_OF_THE_HUB = ("huggingface_hub", "httpx")
"""Loggers that tell of each attempt to reach the hub."""


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers and its hub client from printing; afterwards all is as it was."""
    levels = {name: logging.getLogger(name).level for name in _OF_THE_HUB}
    verbosity = transformers_logging.get_verbosity()
    had_progress_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if had_progress_bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def quiet_gguf_loading() -> Iterator[None]:
    """Be quiet while a GGUF file is read, too: its bar is one that no setting reaches."""
    from transformers import modeling_gguf_pytorch_utils

    reader = vars(modeling_gguf_pytorch_utils)
    bar = reader.get("tqdm")
    if bar is not None:  # without it there is nothing to silence, and no reason to fail
        reader["tqdm"] = partial(bar, disable=True)
    try:
        with quiet_loading():
            yield
    finally:
        if bar is not None:
            reader["tqdm"] = bar
