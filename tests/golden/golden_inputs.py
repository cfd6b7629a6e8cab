"""What the golden run learns from and with; nothing of the package is imported here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import tiny

SETTINGS: dict[str, Any] = {
    "experiment_dir": "experiments",
    "experiment_name": "golden",
    "model_name": "encoder",
    "tasks": ["tasks/animals", "tasks/weather"],
    "cache_dir": "cache",
    "device": "cpu",
    "epochs": 2,
    "batch_size": 8,
    "eval_batch_size": 6,
    "learning_rate": 0.05,
    "max_length": 16,
    "pooling": "mean",
    "early_stopping_patience": 2,
    "composition": "cumulative",
    "shared": "lora",
    "lora_r": 2,
    "lora_alpha": 4,
    "use_ewc": True,
    "lambda_ewc": 1000.0,
    "ewc_fisher_examples": 6,
    "use_orthogonal": True,
    "lambda_ortho": 0.1,
    "use_replay": True,
    "replay_ratio": 0.3,
    "generation_model": "generator",
    "generation_batch_size": 2,
    "max_gen_length": 6,
    "replay_tuning": True,
    "replay_tuning_examples": 4,
    "replay_tuning_epochs": 2,
    "replay_tuning_r": 2,
    "use_lateral": True,
    "lateral_rank": 4,
    "use_router": True,
    "router_examples": 8,
    "checkpoint_every": 1,
    "keep_last_n_checkpoints": 3,
}
"""Every technique acts: its penalty, its texts or its units stand in the run log."""


def make_inputs(folder: Path) -> None:
    """Write an encoder, a generator, the tasks and ``golden.yaml`` below ``folder``."""
    os.chdir(folder)
    tiny.make_encoder(Path("encoder"), hidden_size=16)
    tiny.make_tasks(Path("tasks"), train=24, test=12)
    _make_generator(Path("generator"))
    Path("golden.yaml").write_text(json.dumps(SETTINGS), encoding="utf-8")  # JSON is YAML


def _make_generator(folder: Path) -> None:
    """Save a GPT-2 with random weights that knows the words of the tasks."""
    words = [w for task in tiny.TOPICS.values() for text in task.values() for w in text.split()]
    vocabulary = ["<end>", "<unknown>", *dict.fromkeys([*words, *tiny.FILLER])]
    backend = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unknown>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", unk_token="<unknown>"
    ).save_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_positions=128,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)
