"""Generative replay from settings."""

from __future__ import annotations

from functools import partial

from plora_cl.cache_folder import GENERATED
from plora_cl.compute.environment import deciding
from plora_cl.data.tokens.tokenisation import token_ids
from plora_cl.generation.causal import CausalGenerator
from plora_cl.generation.generator import TextGenerator
from plora_cl.generation.lora_tuning import TuningPlan
from plora_cl.generation.text_cache import CachedGenerator
from plora_cl.methods.base import MethodSetup
from plora_cl.methods.replay.method import GenerativeReplay
from plora_cl.methods.replay.settings import ReplaySettings


def from_settings(settings: ReplaySettings, setup: MethodSetup) -> GenerativeReplay:
    """Return the method that ``settings`` describe."""
    pad_token_id = setup.tokenizer.pad_token_id
    assert isinstance(pad_token_id, int)  # tasks were tokenised with it
    tuning = TuningPlan(
        examples=settings.replay_tuning_examples,
        epochs=settings.replay_tuning_epochs,
        batch_size=settings.generation_batch_size,
        learning_rate=settings.replay_tuning_learning_rate,
        r=settings.replay_tuning_r,
    )
    return GenerativeReplay(
        generator=_generator(settings, setup),
        encode=partial(token_ids, setup.tokenizer, max_length=setup.max_length),
        pad_token_id=pad_token_id,
        ratio=settings.replay_ratio,
        templates=settings.replay_prompts,
        filtered=settings.replay_filter,
        token_budget=settings.replay_token_budget,
        max_new_tokens=settings.max_gen_length,
        batch_size=settings.generation_batch_size,
        tuning=tuning if settings.replay_tuning else None,
        seed=setup.seed,
    )


def _generator(settings: ReplaySettings, setup: MethodSetup) -> TextGenerator:
    accelerator = setup.accelerator
    generator = CausalGenerator(
        settings.generation_model,
        max_new_tokens=settings.max_gen_length,
        temperature=settings.temperature,
        top_p=settings.top_p,
        device=accelerator.device,
        dtype=accelerator.dtype,
    )
    facts = deciding(accelerator.environment())
    return CachedGenerator(generator, setup.cache_dir / GENERATED, facts)
