"""A causal language model of transformers as a `TextGenerator`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import cached_property
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from plora_cl.errors import ModelError
from plora_cl.generation.generator import Generated
from plora_cl.generation.generator_digest import tensors_digest
from plora_cl.generation.locations import place_of
from plora_cl.generation.lora import Lora
from plora_cl.generation.lora_tuning import (
    Row,
    Tuned,
    TuningExample,
    TuningPlan,
    TuningState,
    tune,
)
from plora_cl.generation.postprocess import cleaned
from plora_cl.pretrained.configuration_digest import configuration_digest
from plora_cl.pretrained.loading import first_line, load_pretrained, longest_input
from plora_cl.units import Units

_EXPECTED = (
    "expected a causal language model: a hub id such as gpt2, a folder, a .gguf file, or "
    "packaged:smollm2, which needs no hub"
)


class CausalGenerator:
    """Samples texts from a causal language model.

    The tokenizer is loaded at once, so that a wrong name is an error at the start of a run. The
    model is loaded when it is first needed. If the tokenizer has a chat template, prompts use it.

    Args:
        name: Hub id, local folder, path of a ``.gguf`` file or ``packaged:smollm2``.
        max_new_tokens: Longest text, in tokens.
        temperature: Divides the logits, above 0.
        top_p: Sampling takes the most probable tokens that together reach this, in (0, 1].
        device: Device of the model.
        dtype: Type of its weights and computations.

    Raises:
        ModelError: There is no such model.

    Source: nucleus sampling: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration".
    """

    def __init__(
        self,
        name: str,
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.name, self._device, self._dtype = name, device, dtype
        self._max_new_tokens = max_new_tokens
        self._sampling = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
        }
        self._place = place_of(name)
        self._tokenizer: PreTrainedTokenizerBase = self._load(AutoTokenizer)
        self._model: PreTrainedModel | None = None

    @property
    def instruction_tuned(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return self._tokenizer.chat_template is not None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of weights, configuration, vocabulary and sampling; loads the model."""
        model = self._loaded()
        described = [self._vocabulary(), self._sampling, configuration_digest(model)]
        return tensors_digest(model.state_dict().items(), described)

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 of weights, rounded to bfloat16, and vocabulary; loads the model."""
        rounded = (  # one tensor at a time: a model may fill the memory
            (name, tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor)
            for name, tensor in self._loaded().state_dict().items()
        )
        return tensors_digest(rounded, self._vocabulary())

    def _vocabulary(self) -> list[Any]:
        """Return the vocabulary and the chat template."""
        return [self._tokenizer.get_vocab(), self._tokenizer.chat_template]

    def generate(
        self, prompt: str, *, count: int, seed: int, lora: Lora | None = None
    ) -> list[Generated]:
        """Return ``count`` texts sampled after ``prompt``, in one batch."""
        model = self._loaded()
        ids = self._prompt_ids(self._asked(prompt))
        prompt_ids = torch.tensor([ids], dtype=torch.int64, device=self._device)
        ends = self._ends
        settings = GenerationConfig(
            do_sample=True,
            top_k=0,
            num_return_sequences=count,
            eos_token_id=ends or None,
            pad_token_id=ends[0] if ends else 0,
            **self._sampling,
        )
        with (
            self._own_randomness(),
            torch.no_grad(),
            torch.autocast(self._device.type, enabled=False),
            nullcontext() if lora is None else lora.within(model),
        ):
            torch.manual_seed(seed)
            generate: Any = model.generate
            written = generate(
                input_ids=prompt_ids,
                attention_mask=torch.ones_like(prompt_ids),
                generation_config=settings,
            )
        return [self._decoded(new) for new in written[:, len(ids) :].cpu().tolist()]

    def tune(
        self,
        examples: Sequence[TuningExample],
        plan: TuningPlan,
        state: TuningState,
        *,
        seed: int,
        what: str,
    ) -> Units[Tuned]:
        """Tune a LoRA on ``examples``; see `lora_tuning.tune`.

        A text is learned up to ``max_new_tokens`` tokens, its end token included if that fits.
        """
        model = self._loaded()
        rows = [[self._row(prompt, text) for prompt in prompts] for text, prompts in examples]
        with closing(tune(model, rows, plan, state, seed=seed, what=what)) as units:
            while True:
                with self._own_randomness(), torch.autocast(self._device.type, enabled=False):
                    try:
                        unit = next(units)
                    except StopIteration as end:
                        tuned: Tuned = end.value
                        return tuned
                yield unit

    def release(self) -> None:
        """Drop the model."""
        self._model = None

    def _asked(self, prompt: str) -> str:
        """Return ``prompt``, inside the chat template if there is one."""
        if not self.instruction_tuned:
            return prompt
        request = [{"role": "user", "content": prompt}]
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
        try:
            return str(self._tokenizer.apply_chat_template(request, **options))
        except Exception as error:  # templates raise errors of any type
            raise ModelError(
                f"generation_model: the chat template of {self.name!r} cannot be used: "
                f"{first_line(error)}; choose another model"
            ) from error

    def _prompt_ids(self, asked: str) -> list[int]:
        """Return the token ids of a prompt as `_asked` returns it.

        Raises:
            ModelError: It leaves too little room for a text.
        """
        ids = self._encoded(asked, special=not self.instruction_tuned)
        limit = self._longest_input
        if limit is not None and len(ids) + self._max_new_tokens > limit:
            raise ModelError(
                f"max_gen_length: {self._max_new_tokens} after a prompt of {len(ids)} tokens is "
                f"more than the {limit} tokens that {self.name!r} takes; set it to "
                f"{limit - len(ids)} at most, or shorten replay_prompts"
            )
        return ids

    def _encoded(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=special, verbose=False)[
            "input_ids"
        ]
        return ids

    def _row(self, prompt: str, text: str) -> Row:
        """Return the tokens of the prompt as `generate` reads it, followed by those of the text."""
        asked = self._asked(prompt)
        prompt_ids = self._prompt_ids(asked)
        gap = "" if asked[-1:].isspace() else " "
        ends = self._ends[:1]
        ids = [*self._encoded(gap + text, special=False), *ends]
        return Row([*prompt_ids, *ids[: self._max_new_tokens]], len(prompt_ids))

    @cached_property
    def _longest_input(self) -> int | None:
        return longest_input(self._loaded())

    @cached_property
    def _ends(self) -> list[int]:
        """The end tokens: that of the tokenizer and those of the model."""
        of_model = getattr(self._loaded().config, "eos_token_id", None)
        found = of_model if isinstance(of_model, list) else [of_model]
        own = self._tokenizer.eos_token_id
        return [end for end in dict.fromkeys([own, *found]) if end is not None]

    def _decoded(self, ids: list[int]) -> Generated:
        end = next((place for place, token in enumerate(ids) if token in self._ends), len(ids))
        text = self._tokenizer.decode(ids[:end], skip_special_tokens=True)
        return Generated(cleaned(str(text)), min(end + 1, len(ids)))

    def _loaded(self) -> PreTrainedModel:
        if self._model is None:
            with self._own_randomness():
                model: PreTrainedModel = self._load(AutoModelForCausalLM, dtype=self._dtype)
            model.requires_grad_(False)
            model.generation_config = GenerationConfig()  # the settings alone decide the sampling
            self._model = model.to(self._device).eval()  # type: ignore[arg-type]
        return self._model

    def _load(self, factory: Any, **options: Any) -> Any:
        return load_pretrained(
            factory,
            self._place.location,
            asked_as=f"generation_model: {self.name!r}",
            advice=_EXPECTED,
            gguf_file=self._place.gguf_file,
            **options,
        )

    def _own_randomness(self) -> AbstractContextManager[None]:
        """Restore the process-wide random generators at the end of the ``with`` block."""
        devices = [self._device] if self._device.type == "cuda" else []
        return torch.random.fork_rng(devices=devices)
