"""The configuration of an encoder and its tokenizer as tensors, so that checkpoints can hold them.

With them and the base weights, an experiment needs no model folder and no hub to predict.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from plora_cl.errors import IncompatibleCheckpointError, OutputError, PloraError
from plora_cl.pretrained.loading import first_line, load_pretrained, refuse_kernels, without_pooler
from plora_cl.pretrained.quiet import quiet_loading

_NAME = re.compile(r"[A-Za-z0-9_]+\.(json|jinja|model|txt)")
_ADVICE = "the checkpoint holds it; another version of transformers may have written it"


def model_files(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """Return what `from_files` builds an encoder and a tokenizer from: file name to uint8 bytes.

    Args:
        encoder: Encoder of transformers; its weights are not part of the result.
        tokenizer: Its tokenizer.
    """
    with _temporary_folder() as folder, quiet_loading():
        encoder.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        files = sorted(path for path in Path(folder).iterdir() if path.is_file())
        return {path.name: _tensor(path.read_bytes()) for path in files}


def from_files(files: Mapping[str, Tensor]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return an encoder with arbitrary weights, in float32, and its tokenizer.

    The process-wide random generators keep their state. No code that comes with a model runs.

    Args:
        files: What `model_files` returned.

    Raises:
        IncompatibleCheckpointError: A name is not one of a configuration or tokenizer file.
        ModelError: This version of transformers cannot build a model from them.
    """
    with _temporary_folder() as folder:
        for name, content in files.items():
            if not _NAME.fullmatch(name):
                raise IncompatibleCheckpointError(
                    f"the checkpoint has a model file {name!r}; expected a name such as config.json"
                )
            Path(folder, name).write_bytes(content.numpy().tobytes())
        config = _loaded(AutoConfig, folder)
        tokenizer: PreTrainedTokenizerBase = _loaded(AutoTokenizer, folder)
        refuse_kernels(folder)
    with torch.random.fork_rng(), quiet_loading():
        encoder: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32)
    return without_pooler(encoder), tokenizer


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """Give a folder that is gone afterwards.

    Raises:
        OutputError: The disk refused.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield folder
    except (PloraError, MemoryError):
        raise
    except Exception as error:  # tokenizers raise no OSError of their own
        raise OutputError(
            f"cannot write the encoder's files in {tempfile.gettempdir()}: {first_line(error)}; "
            "is there room? set TMPDIR to a folder that has some"
        ) from error


def _loaded(factory: Any, folder: str) -> Any:
    return load_pretrained(factory, folder, asked_as="encoder in the checkpoint", advice=_ADVICE)


def _tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
