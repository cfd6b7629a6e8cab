"""Which settings exclude one another, and which are without effect beside others."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from plora_cl.config.fields import SettingFields
from plora_cl.config.task_entry import task_name


class Contradiction(NamedTuple):
    """Settings that do not go together.

    Attributes:
        settings: Their names, the one to point at first.
        text: What is wrong and the ways out.
    """

    settings: tuple[str, ...]
    text: str


_STRENGTHS = (
    ("use_ewc", "lambda_ewc", "--no-ewc"),
    ("use_orthogonal", "lambda_ortho", "--no-orthogonal"),
)


def contradictions(settings: SettingFields) -> list[Contradiction]:
    """Return everything that no run can satisfy."""
    found: list[Contradiction] = []
    if settings.use_ewc and settings.shared == "none":
        found.append(
            Contradiction(
                ("shared", "use_ewc"),
                "EWC protects shared parameters and shared is none, so it could have no effect; "
                "share some (shared: layernorm) or switch EWC off (use_ewc: false / --no-ewc)",
            )
        )
    for switch, strength, off in _STRENGTHS:
        if getattr(settings, switch) and getattr(settings, strength) == 0:
            found.append(
                Contradiction(
                    (strength, switch),
                    f"{strength} is 0, so {switch} could have no effect; raise it or switch it off "
                    f"({switch}: false / {off})",
                )
            )
    found += _without_task_adapters(settings) + _beside_joint(settings) + _replay(settings)
    if settings.precision == "fp16" and settings.device == "cpu":
        found.append(
            Contradiction(
                ("precision", "device"),
                "fp16 needs a GPU and device is cpu; use precision bf16 or fp32, or another device",
            )
        )
    if settings.max_train_examples and settings.max_train_examples_per_class:
        found.append(
            Contradiction(
                ("max_train_examples_per_class", "max_train_examples"),
                "examples are limited per class and per task; keep one of "
                "max_train_examples_per_class and max_train_examples",
            )
        )
    if settings.max_eval_examples and settings.max_validation_examples_per_class:
        found.append(
            Contradiction(
                ("max_validation_examples_per_class", "max_eval_examples"),
                "validation examples are limited per class and per split; keep one of "
                "max_validation_examples_per_class and max_eval_examples",
            )
        )
    return found + _names(settings)


def _without_task_adapters(settings: SettingFields) -> list[Contradiction]:
    if settings.task_adapters:
        return []
    need = {
        "use_orthogonal": "O-LoRA keeps the adapters of tasks apart, and tasks have none; switch "
        "it off (use_orthogonal: false / --no-orthogonal)",
        "use_lateral": "lateral connections read what earlier adapters see, and tasks have none; "
        "switch them off (use_lateral: false / --no-lateral)",
    }
    return [
        Contradiction(
            ("task_adapters", name), f"{text} or give tasks adapters (task_adapters: true)"
        )
        for name, text in need.items()
        if getattr(settings, name)
    ]


def _beside_joint(settings: SettingFields) -> list[Contradiction]:
    names = [name for name in _AGAINST_FORGETTING if settings.joint and getattr(settings, name)]
    if not names:
        return []
    flags = " ".join(f"--no-{name.removeprefix('use_')}" for name in names)
    return [
        Contradiction(
            ("joint", *names),
            f"joint training has all tasks before it and forgets none, so {', '.join(names)} could "
            f"have no effect; switch off what is on ({flags}), or learn one task after the other "
            "(joint: false)",
        )
    ]


def _replay(settings: SettingFields) -> list[Contradiction]:
    found: list[Contradiction] = []
    if not settings.use_replay:
        return found
    if settings.shared == "none" and (
        settings.composition == "isolated" or not settings.task_adapters
    ):
        found.append(
            Contradiction(
                ("use_replay", "shared", "composition"),
                "no earlier task depends on anything that still changes, since shared is none, so "
                "replay could have no effect; share some (shared: layernorm), let adapters add up "
                "(composition: cumulative), or switch replay off (use_replay: false / --no-replay)",
            )
        )
    if settings.replay_ratio == 0:
        found.append(
            Contradiction(
                ("replay_ratio", "use_replay"),
                "replay_ratio is 0, so nothing would be replayed; raise it or switch replay off "
                "(use_replay: false / --no-replay)",
            )
        )
    return found


def _names(settings: SettingFields) -> list[Contradiction]:
    names = [task_name(entry) for entry in settings.tasks]
    unfit = [
        Contradiction(
            ("tasks",),
            f"the task name {name!r} has characters that a terminal does not show as they are; "
            "give the task another name ({name: ..., path: ...})",
        )
        for name in names
        if not name.isprintable()
    ]
    return unfit + [
        Contradiction(
            ("tasks",),
            f"the task name {name!r} is used {names.count(name)} times; give each task a name of "
            "its own ({name: ..., path: ...})",
        )
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]


_AGAINST_FORGETTING = ("use_ewc", "use_orthogonal", "use_replay", "use_lateral")
_EWC_DETAILS = (
    "ewc_mode",
    "ewc_fisher",
    "ewc_gamma",
    "ewc_fisher_examples",
    "ewc_fisher_batch_size",
)
_ORTHO_DETAILS = ("ortho_form", "lambda_ortho_norm")
_TUNING_DETAILS = (
    *("replay_tuning_examples", "replay_tuning_epochs"),
    *("replay_tuning_learning_rate", "replay_tuning_r"),
)
_REPLAY_DETAILS = (
    *("replay_ratio", "replay_prompts", "replay_filter", "replay_token_budget"),
    *("replay_tuning", *_TUNING_DETAILS),
    *("generation_model", "generation_batch_size", "max_gen_length", "temperature", "top_p"),
)

_EFFECTLESS: tuple[tuple[Callable[[SettingFields], bool], str, tuple[str, ...]], ...] = (
    (lambda s: not s.use_ewc, "use_ewc is false", ("lambda_ewc", *_EWC_DETAILS)),
    (lambda s: s.ewc_mode == "offline", "ewc_mode is offline", ("ewc_gamma",)),
    (
        lambda s: s.ewc_fisher != "batched",
        "ewc_fisher is not batched",
        ("ewc_fisher_batch_size",),
    ),
    (
        lambda s: not s.use_orthogonal,
        "use_orthogonal is false",
        ("lambda_ortho", *_ORTHO_DETAILS),
    ),
    (lambda s: not s.use_replay, "use_replay is false", _REPLAY_DETAILS),
    (lambda s: not s.replay_tuning, "replay_tuning is false", _TUNING_DETAILS),
    (lambda s: not s.use_lateral, "use_lateral is false", ("lateral_rank",)),
    (lambda s: not s.task_adapters, "task_adapters is false", ("composition",)),
    (
        lambda s: not s.task_adapters and s.shared != "lora",
        "there is no adapter: task_adapters is false and shared is not lora",
        ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"),
    ),
    (lambda s: not s.use_router, "use_router is false", ("router_examples", "router_abstain")),
    (
        lambda s: s.early_stopping_patience == 0,
        "early_stopping_patience is 0; set it to the epochs to wait for a better score, such as 2",
        ("early_stopping_min_delta", "early_stopping_metric"),
    ),
    (
        lambda s: s.checkpoint_every == 0,
        "checkpoint_every is 0",
        ("keep_last_n_checkpoints", "async_checkpoint", "checkpoint_disk_budget"),
    ),
    (
        lambda s: len(s.tasks) == 1,
        "there is only one task",
        (
            *("composition", "lambda_ewc", *_EWC_DETAILS, "lambda_ortho", *_ORTHO_DETAILS),
            *("use_lateral", "lateral_rank", "joint", "use_replay"),
            *_REPLAY_DETAILS,
        ),
    ),
)


def effectless(settings: SettingFields) -> dict[str, str]:
    """Return every setting whose value changes nothing beside the others, and the reason."""
    reasons: dict[str, str] = {}
    for applies, reason, names in _EFFECTLESS:
        if applies(settings):
            reasons |= {name: reason for name in names if name not in reasons}
    return reasons


def ineffective(settings: SettingFields, given: Collection[str]) -> list[str]:
    """Return one line for each setting that was asked for and changes nothing.

    Args:
        settings: The settings of the run.
        given: Names that the user wrote; what is left at, or set to, its default is not reported.
    """
    reasons = effectless(settings)
    prompts = settings.replay_prompts if isinstance(settings.replay_prompts, dict) else {}
    tasks = [task_name(entry) for entry in settings.tasks]
    strangers = [
        f"replay_prompts.{name} has no effect here: no task is called {name}"
        for name in prompts
        if name not in tasks and "replay_prompts" in given and settings.use_replay
    ]
    return strangers + [
        f"{name} has no effect here: {reasons[name]}"
        for name, field in type(settings).model_fields.items()
        if name in reasons and name in given and getattr(settings, name) != field.default
    ]
