"""What transformers prints while it loads is not printed, and only then."""

from __future__ import annotations

import contextlib
import logging as stdlib_logging
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from transformers import modeling_gguf_pytorch_utils
from transformers.utils import logging

from plora_cl.pretrained.quiet import quiet_gguf_loading, quiet_loading


def bars(capfd: pytest.CaptureFixture[str]) -> list[bool]:
    """Return whether the bar of transformers and the one of its GGUF loader are drawn."""
    drawn = []
    for bar in (logging.tqdm, vars(modeling_gguf_pytorch_utils)["tqdm"]):
        for _ in bar(range(2), desc="loading"):
            pass
        drawn.append("loading" in capfd.readouterr().err)
    return drawn


@pytest.mark.parametrize(
    ("quiet", "drawn"), [(quiet_loading, [False, True]), (quiet_gguf_loading, [False, False])]
)
def test_what_is_loaded_is_loaded_without_its_bar_and_bars_are_back_afterwards(
    quiet: Callable[[], AbstractContextManager[None]],
    drawn: list[bool],
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = (bars(capfd), logging.get_verbosity())
    with contextlib.suppress(OSError), quiet():
        assert bars(capfd) == drawn
        assert logging.get_verbosity() == stdlib_logging.ERROR
        stdlib_logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s")
        stdlib_logging.getLogger("httpx").warning("no host")
        assert not any(capfd.readouterr())
        raise OSError("no model")
    assert (bars(capfd), logging.get_verbosity()) == before
    assert before[0] == [True, True]


def test_bars_that_somebody_switched_off_stay_off(capfd: pytest.CaptureFixture[str]) -> None:
    logging.disable_progress_bar()
    try:
        with quiet_loading():
            pass
        assert not bars(capfd)[0]
    finally:
        logging.enable_progress_bar()


def test_a_reader_of_gguf_files_without_a_bar_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(modeling_gguf_pytorch_utils, "tqdm")
    with quiet_gguf_loading():
        assert logging.get_verbosity() == stdlib_logging.ERROR
    assert not hasattr(modeling_gguf_pytorch_utils, "tqdm")
