"""Language models small enough to build in every test, and a scripted one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from plora_cl.generation.generator import Generated
from plora_cl.generation.lora import Lora
from plora_cl.generation.lora_tuning import Tuned, TuningExample, TuningPlan, TuningState
from plora_cl.units import Unit, Units

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} : {{ message['content'] }} "
    "{% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)


def make_generator(
    folder: Path, words: Sequence[str], *, chat: bool = False, spread: float = 0.02
) -> Path:
    """Save a GPT-2 with random weights that knows ``words``; return the folder.

    With a wide ``spread`` a word can become much more probable than others, as in a trained model.
    """
    vocabulary = ["<end>", "<unknown>", *dict.fromkeys(words)]
    backend = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unknown>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", unk_token="<unknown>"
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_positions=128,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=spread,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


class ScriptedGenerator:
    """A `TextGenerator` that writes random numbers as words, or what a script says.

    Args:
        script: Texts to return in turn, over all calls; None writes numbers.
    """

    name, instruction_tuned = "scripted", False

    def __init__(self, script: Sequence[str] | None = None, digest: str = "weights") -> None:
        self.digest = self.weights_digest = digest
        self.asked: list[tuple[str, int, int]] = []
        self.worn: list[Lora | None] = []
        self.tuned_on: list[Sequence[TuningExample]] = []
        self._script = None if script is None else list(script)
        self.released = 0

    def generate(
        self, prompt: str, *, count: int, seed: int, lora: Lora | None = None
    ) -> list[Generated]:
        self.asked.append((prompt, count, seed))
        self.worn.append(lora)
        generator = random.Random(seed if lora is None else f"{seed} {lora.digest}")
        texts = (
            [" ".join(str(generator.randrange(5, 100)) for _ in range(4)) for _ in range(count)]
            if self._script is None
            else [self._script.pop(0) for _ in range(count)]
        )
        return [Generated(text, len(text.split()) + 1) for text in texts]

    def tune(
        self,
        examples: Sequence[TuningExample],
        plan: TuningPlan,
        state: TuningState,
        *,
        seed: int,
        what: str,
    ) -> Units[Tuned]:
        self.tuned_on.append(examples)
        generator = torch.Generator().manual_seed(seed)
        while state.batches < plan.epochs:
            state.count(float(len(examples)), tokens=state.batches + 1)
            state.end_epoch()
            yield Unit(what, state.batches, plan.epochs)
        weights = {"layer.lora_A": torch.randn(plan.r, 3, generator=generator)}
        return Tuned(Lora(weights), list(state.losses))

    def release(self) -> None:
        self.released += 1


def numbers(texts: list[str]) -> list[list[int]]:
    """Turn words that are numbers into token ids, between two special tokens."""
    return [[2, *map(int, text.split()), 3] for text in texts]
