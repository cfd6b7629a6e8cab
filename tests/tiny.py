"""A tiny encoder and small tasks, written to disk as a user would have them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizer

TOPICS = {
    "animals": {"cat": "meow purr whiskers paw", "dog": "bark leash bone fetch"},
    "weather": {"rain": "wet cloud umbrella drops", "sun": "bright hot sky beach"},
    "food": {
        "fruit": "apple pear sweet juice",
        "soup": "hot bowl spoon broth",
        "bread": "bake oven",
    },
}
FILLER = ["the", "a", "very", "and", "with", "of", "is", "was", "on", "it", "my", "day"]


def make_encoder(folder: Path, *, hidden_size: int = 32, layers: int = 2) -> Path:
    """Save a small BERT with random weights and its tokenizer; return the folder."""
    words = sorted({w for task in TOPICS.values() for text in task.values() for w in text.split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *FILLER]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def make_tasks(folder: Path, *, train: int = 40, test: int = 20) -> list[Path]:
    """Write the three tasks in the local-folder layout; return their folders."""
    return [
        make_task(folder / name, classes, train=train, test=test)
        for name, classes in TOPICS.items()
    ]


def make_task(folder: Path, classes: dict[str, str], *, train: int, test: int) -> Path:
    """Write one task with a train, a validation and a test split."""
    generator = random.Random(folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("validation", test), ("test", test)):
        lines = []
        for row in range(count):
            label = sorted(classes)[row % len(classes)]
            words = generator.choices(FILLER, k=generator.randint(3, 8))
            words.insert(generator.randint(0, 3), generator.choice(classes[label].split()))
            lines.append(json.dumps({"text": " ".join(words), "label": label}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
