"""Settings and rules of generative replay; loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Tag

from plora_cl.generation.locations import place_of
from plora_cl.generation.prompts import require_valid
from plora_cl.impact import Impact
from plora_cl.model.settings import ModelSettings
from plora_cl.pretrained.folder import require_model_folder
from plora_cl.setting_types import (
    LIST,
    MAPPING,
    AboveZero,
    Count,
    NotNegative,
    Place,
    Positive,
    Rank,
    Refers,
    Switch,
    Text,
    not_empty,
)
from plora_cl.technique import Contradiction, Effectless, Technique

_TRAJECTORY, _STRUCTURAL = Impact.TRAJECTORY, Impact.STRUCTURAL


def _valid_prompts(value: _Prompts) -> _Prompts:
    lists = value.values() if isinstance(value, dict) else [value or ()]
    for template in (template for templates in lists for template in templates):
        require_valid(template)
    return value


_Templates: TypeAlias = Annotated[tuple[Text, ...], AfterValidator(not_empty)]
_Prompts: TypeAlias = (
    Annotated[
        Annotated[_Templates, Tag(LIST)] | Annotated[dict[str, _Templates], Tag(MAPPING)],
        Discriminator(lambda value: MAPPING if isinstance(value, dict) else LIST),
    ]
    | None
)


class ReplaySettings(ModelSettings):
    """Settings of generative replay and of its language model."""

    use_replay: Annotated[Switch, _STRUCTURAL] = False
    """Generative replay: a language model writes texts of earlier tasks to learn from again."""
    replay_ratio: Annotated[NotNegative, _TRAJECTORY] = 0.2
    """Replayed examples per training example."""
    replay_prompts: Annotated[
        _Prompts, AfterValidator(_valid_prompts), Refers.TASKS, _TRAJECTORY
    ] = None
    """Templates with {label}, optionally {task}: a list, or lists by task; null: built-in."""
    replay_filter: Annotated[Switch, _TRAJECTORY] = True
    """Keep only texts that the earlier task's own head assigns to the class in the prompt."""
    replay_token_budget: Annotated[Count, _TRAJECTORY] = 0
    """New tokens before each task, a chunk for each class at least; 0: four times what is asked."""
    replay_tuning: Annotated[Switch, _STRUCTURAL] = False
    """Tune the generator on each task with a LoRA while its texts are there, as LAMOL does."""
    replay_tuning_examples: Annotated[Positive, _TRAJECTORY] = 1000
    """Training examples per task that the generator is tuned on, a stratified sample."""
    replay_tuning_epochs: Annotated[Positive, _TRAJECTORY] = 3
    """Passes over them."""
    replay_tuning_learning_rate: Annotated[AboveZero, _TRAJECTORY] = 1e-3
    """Learning rate of the generator's LoRA at first; it falls linearly to 0."""
    replay_tuning_r: Annotated[Rank, _TRAJECTORY] = 8
    """Rank of the generator's LoRA; a checkpoint holds one for each finished task."""
    generation_model: Annotated[Place, Refers.MODEL, _TRAJECTORY] = "gpt2"
    """Language model that writes replay examples: hub id, folder, .gguf file, packaged:smollm2."""
    generation_batch_size: Annotated[Positive, _TRAJECTORY] = 16
    """Texts to generate at once, and to tune the generator on at once."""
    max_gen_length: Annotated[Positive, _TRAJECTORY] = 50
    """Longest generated text in tokens."""
    temperature: Annotated[AboveZero, _TRAJECTORY] = 0.7
    """Sampling temperature of the generator."""
    top_p: Annotated[AboveZero, Field(le=1), _TRAJECTORY] = 0.9
    """Nucleus sampling threshold of the generator, in (0, 1]."""


def _contradictions(settings: ReplaySettings) -> Iterator[Contradiction]:
    adapters_add_up = settings.composition == "cumulative" and settings.task_adapters
    if settings.shared == "none" and not adapters_add_up:
        yield Contradiction(
            ("use_replay", "shared", "composition"),
            "no earlier task depends on anything that still changes, since shared is none, so "
            "replay could have no effect; share some (shared: layernorm), let adapters add up "
            f"(composition: cumulative), or switch replay off ({REPLAY.way_off})",
        )
    if settings.replay_ratio == 0:
        yield Contradiction(
            ("replay_ratio", "use_replay"),
            "replay_ratio is 0, so nothing would be replayed; raise it or switch replay off "
            f"({REPLAY.way_off})",
        )


def _require_generator(settings: ReplaySettings) -> None:
    place = place_of(settings.generation_model)
    if place.gguf_file is None:
        require_model_folder("generation_model", place.location, "a language model")


REPLAY = Technique(
    name="replay",
    title="generative replay",
    settings=ReplaySettings,
    switch="use_replay",
    factory="plora_cl.methods.replay.build:from_settings",
    flags={"replay_ratio": "RATIO"},
    contradictions=_contradictions,
    effectless=(
        Effectless(
            lambda s: not s.replay_tuning,
            "replay_tuning is false",
            (
                *("replay_tuning_examples", "replay_tuning_epochs"),
                *("replay_tuning_learning_rate", "replay_tuning_r"),
            ),
        ),
    ),
    require_inputs=_require_generator,
)
