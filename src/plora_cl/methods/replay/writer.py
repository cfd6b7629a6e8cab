"""Asks a language model for replay examples, and decides which of them are kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from plora_cl.generation.generator import Generated, TextGenerator
from plora_cl.generation.lora import Lora
from plora_cl.generation.postprocess import normalised_digest
from plora_cl.generation.prompts import Prompts
from plora_cl.methods.replay.draft import Draft
from plora_cl.methods.replay.pool import padded
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.model.evaluation_mode import evaluation_mode
from plora_cl.state import SeedFor, StateDict, derived_seed

Encode = Callable[[list[str]], list[list[int]]]
"""Turns texts into token ids of the encoder, special tokens included."""


class Writing(NamedTuple):
    """The examples of one earlier task, under way.

    Attributes:
        task: Index of the task that is going to be learned.
        earlier: Index of the task they are of.
        prompts: What the language model is asked for.
        draft: What there is so far.
    """

    task: int
    earlier: int
    prompts: Prompts
    draft: Draft

    def shortfall(self) -> str | None:
        """Return which classes are short of texts and why, as a message; None if none is."""
        counts = self.draft.report()
        missing = [
            f"{self.prompts.classes[label]} ({wanted - self.draft.kept[label]})"
            for label, wanted in enumerate(self.draft.quotas)
            if self.draft.kept[label] < wanted
        ]
        if not missing:
            return None
        return (
            f"replay: only {counts['kept']} of {counts['asked']} texts of {self.prompts.task} were "
            f"kept, short of {', '.join(missing)}; of {counts['generated']} generated the task's "
            f"own head gave {counts['disagreed']} another class, {counts['duplicate']} were "
            f"duplicates and {counts['empty']} empty. A larger replay_token_budget, other "
            "replay_prompts or another generation_model may help"
        )

    def state_dict(self) -> StateDict:
        """Return everything, with the prompts as they were made."""
        return {
            "task": self.task,
            "earlier": self.earlier,
            "name": self.prompts.task,
            "classes": list(self.prompts.classes),
            "templates": list(self.prompts.templates),
            "draft": self.draft.state_dict(),
        }

    @classmethod
    def from_state(cls, state: StateDict) -> Self:
        """Return what `state_dict` described."""
        prompts = Prompts(state["name"], tuple(state["classes"]), tuple(state["templates"]))
        draft = Draft(state["draft"]["quotas"])
        draft.load_state_dict(state["draft"])
        return cls(state["task"], state["earlier"], prompts, draft)


class ReplayWriter:
    """Generates chunks of texts and keeps those that are new and of the right class.

    A chunk depends on the seed, both tasks, the class, its own number and the LoRA alone.

    Args:
        generator: Writes texts.
        encode: See `Encode`.
        pad_token_id: Of the encoder.
        filtered: Keep only what the earlier task's own head assigns to the class asked for.
        batch_size: Texts of a chunk, generated at once.
        seed: Of the run.
    """

    def __init__(
        self,
        generator: TextGenerator,
        *,
        encode: Encode,
        pad_token_id: int,
        filtered: bool,
        batch_size: int,
        seed: int,
    ) -> None:
        self._generator = generator
        self._encode, self._pad_token_id = encode, pad_token_id
        self._filtered, self._batch_size, self._seed = filtered, batch_size, seed

    def write_chunk(
        self,
        model: ContinualClassifier,
        writing: Writing,
        label: int,
        training_texts: Collection[bytes],
        lora: Lora | None,
    ) -> None:
        """Add the next chunk of a class to the draft.

        Args:
            model: Its adapter and head of the earlier task decide.
            writing: Where the chunk goes.
            label: The class.
            training_texts: Normalised digests of the earlier task's training texts.
            lora: Of the language model, tuned on the earlier task.
        """
        task, earlier, prompts, draft = writing
        chunk = draft.chunks[label]
        texts = self._generator.generate(
            prompts.prompt(label, chunk),
            count=self._batch_size,
            seed=derived_seed(self._seed, task, SeedFor.GENERATION, earlier, label, chunk),
            lora=lora,
        )
        draft.chunks[label] += 1
        draft.tokens[label] += sum(max(text.tokens, 1) for text in texts)
        ids = self._encode([text.text for text in texts])
        agreed = self._agreed(model, ids, earlier, label)
        for text, its_ids, agrees in zip(texts, ids, agreed, strict=True):
            digest = normalised_digest(text.text)
            fate = _fate(draft, label, text, digest, agrees=agrees)
            if fate == "kept":
                draft.keep(its_ids, label, digest)
                draft.equal_to_training_text += digest in training_texts
            else:
                draft.fates[fate] += 1

    def _agreed(
        self, model: ContinualClassifier, ids: Sequence[Sequence[int]], earlier: int, label: int
    ) -> list[bool]:
        if not self._filtered:
            return [True] * len(ids)
        labels = torch.zeros(len(ids), dtype=torch.int64)
        batch = padded(ids, labels, earlier, self._pad_token_id).to(model.device)
        with evaluation_mode(model), torch.autocast(model.device.type, enabled=False):
            logits: Tensor = model(batch.input_ids, batch.attention_mask, earlier)
        return logits.argmax(-1).eq(label).tolist()


def _fate(draft: Draft, label: int, text: Generated, digest: bytes, *, agrees: bool) -> str:
    if not text.text:
        return "empty"
    if not agrees:
        return "disagreed"
    if draft.knows(digest):
        return "duplicate"
    return "surplus" if draft.kept[label] >= draft.quotas[label] else "kept"
