"""Encoders with random weights and tasks of random words, as a user would have them on disk."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertTokenizer,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

CLASSES = 5
TOKENS = 64
BATCH = 8

_WORDS = [f"word{number}" for number in range(500)]


def quiet() -> None:
    """Let libraries show neither progress bars nor warnings; loading a model undoes that."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for category in (UserWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category)


class Workplace:
    """A folder on the disk to measure, with what every part of the benchmark needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def distilbert(self) -> Path:
        """Return an encoder with the shapes of DistilBERT-base."""
        return self._encoder("distilbert", lambda: DistilBertModel(DistilBertConfig()))

    def tasks(self, sizes: Sequence[int], *, words: int = TOKENS) -> list[Path]:
        """Return a task for each number of training examples, of texts of ``words`` words."""
        return [self._task(number, size, words) for number, size in enumerate(sizes)]

    def settings(self, name: str, encoder: Path, tasks: Sequence[Path]) -> dict[str, Any]:
        """Return settings of an experiment of its own: LoRA r=8 on q, k, v and out, EWC on."""
        return {
            "model_name": str(encoder),
            "tasks": [str(folder) for folder in tasks],
            "experiment_name": name,
            "experiment_dir": str(self.folder / "experiments"),
            "cache_dir": str(self.folder / "cache"),
            "device": "cpu",
            "epochs": 1,
            "batch_size": BATCH,
            "max_length": TOKENS,
            "lora_r": 8,
            "shared": "layernorm",
            "use_ewc": True,
            "ewc_fisher_examples": CLASSES,
            "checkpoint_every": 1,
        }

    def _encoder(self, name: str, build: Any) -> Path:
        folder = self.folder / "encoders" / name
        if folder.exists():
            return folder
        folder.mkdir(parents=True)
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        vocabulary = folder / "vocab.txt"
        vocabulary.write_text("\n".join([*special, *_WORDS]) + "\n", encoding="utf-8")
        quiet()
        torch.manual_seed(0)
        model: PreTrainedModel = build()
        model.save_pretrained(folder)
        BertTokenizer(vocab=str(vocabulary)).save_pretrained(folder)
        return folder

    def _task(self, number: int, size: int, words: int) -> Path:
        folder = self.folder / "tasks" / f"task{number}-{size}-{words}"
        if folder.exists():
            return folder
        folder.mkdir(parents=True)
        generator = random.Random(number)
        for split, rows in (("train", size), ("validation", CLASSES), ("test", CLASSES)):
            lines = [
                {
                    "text": " ".join(generator.choices(_WORDS, k=words)),
                    "label": f"class{row % CLASSES}",
                }
                for row in range(rows)
            ]
            text = "\n".join(map(json.dumps, lines))
            (folder / f"{split}.jsonl").write_text(text + "\n", encoding="utf-8")
        return folder
