"""Silence while transformers loads something: the run has its own progress and its own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from transformers import modeling_gguf_pytorch_utils
from transformers.utils import logging as transformers_logging


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers from printing warnings and progress; afterwards all is as it was."""
    verbosity = transformers_logging.get_verbosity()
    had_progress_bars = transformers_logging.is_progress_bar_enabled()
    # The loader of GGUF files has a bar of its own, which no setting of transformers reaches.
    of_gguf = vars(modeling_gguf_pytorch_utils)
    bar = of_gguf["tqdm"]
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    of_gguf["tqdm"] = partial(bar, disable=True)
    try:
        yield
    finally:
        of_gguf["tqdm"] = bar
        transformers_logging.set_verbosity(verbosity)
        if had_progress_bars:
            transformers_logging.enable_progress_bar()
