"""Real texts and a tiny encoder for the examples; nothing is downloaded."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from plora_cl.data.sources.packaged import PackagedSource

WORDS = 24
VOCABULARY = 2000

Example = dict[str, Tensor]


def read_examples(path: Path | None) -> tuple[list[Example], int, str]:
    """Return tokenised examples, the number of classes, and a SHA-256 of labels and texts.

    Args:
        path: A file with one ``label<TAB>text`` a line; by default the packaged BBC news.
    """
    if path is None:
        rows = [(row.label, row.text) for row in PackagedSource("news", "bbc_news").rows("train")]
    else:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [(label, text) for label, _, text in (line.partition("\t") for line in lines)]
    classes = sorted({label for label, _ in rows})
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return [_example(classes.index(label), text) for label, text in rows], len(classes), digest


def _example(label: int, text: str) -> Example:
    words = [zlib.crc32(word.encode()) % (VOCABULARY - 1) + 1 for word in text.lower().split()]
    ids = torch.tensor((words + WORDS * [0])[:WORDS])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor(label)}


def batch_of(examples: list[Example], step: int, size: int) -> Example:
    """Return the batch of one step: shuffled for each epoch; a function of the step alone."""
    epoch, batch = divmod(step, len(examples) // size)
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(epoch))
    chosen = [examples[int(index)] for index in order[batch * size : (batch + 1) * size]]
    return {name: torch.stack([example[name] for example in chosen]) for name in chosen[0]}


def tiny_model(classes: int) -> PeftModel:
    """Return a two-layer BERT with random weights, dropout, a LoRA adapter and a new head."""
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=WORDS,
    )
    config.num_labels = classes
    lora = LoraConfig(task_type=TaskType.SEQ_CLS, r=4, lora_dropout=0.1)
    model = get_peft_model(BertForSequenceClassification(config), lora)
    assert isinstance(model, PeftModel)
    return model
