"""Which settings exclude one another, and which have no effect together with others."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from plora_cl.config.fields import SettingFields
from plora_cl.data.sources.entry import task_name
from plora_cl.methods.registry import active, techniques
from plora_cl.setting_types import Refers, referring
from plora_cl.technique import Contradiction, Effectless, Technique, no_flag

_LIMITED_TWICE = (
    (
        ("max_train_examples_per_class", "max_train_examples"),
        "examples are limited per class and per task",
    ),
    (
        ("max_validation_examples_per_class", "max_eval_examples"),
        "validation examples are limited per class and per split",
    ),
)


def contradictions(settings: SettingFields) -> list[Contradiction]:
    """Return everything that no run can satisfy."""
    found = [problem for each in active(settings) for problem in _of_technique(each, settings)]
    found += _in_joint_training(settings)
    if settings.precision == "fp16" and settings.device == "cpu":
        found.append(
            Contradiction(
                ("precision", "device"),
                "fp16 needs a GPU and device is cpu; use precision bf16 or fp32, or another device",
            )
        )
    found += (
        Contradiction(limits, f"{what}; keep one of {' and '.join(limits)}")
        for limits, what in _LIMITED_TWICE
        if all(getattr(settings, limit) for limit in limits)
    )
    return found + _names(settings)


def _of_technique(technique: Technique, settings: SettingFields) -> Iterator[Contradiction]:
    strength, switch = technique.strength, technique.switch
    if strength is not None and getattr(settings, strength) == 0:
        yield Contradiction(
            (strength, switch),
            f"{strength} is 0, so {switch} could have no effect; raise it or switch it off "
            f"({technique.way_off})",
        )
    yield from technique.contradictions(settings)


def _in_joint_training(settings: SettingFields) -> list[Contradiction]:
    names = [technique.switch for technique in active(settings) if technique.from_second_task]
    if not settings.joint or not names:
        return []
    return [
        Contradiction(
            ("joint", *names),
            f"joint training has all tasks before it and forgets none, so {', '.join(names)} could "
            f"have no effect; switch off what is on ({' '.join(map(no_flag, names))}), or learn "
            "one task after the other (joint: false)",
        )
    ]


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


_EFFECTLESS = (
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
)


def effectless(settings: SettingFields) -> dict[str, str]:
    """Return every setting whose value changes nothing, given the others, and the reason."""
    rules: list[Effectless] = []
    for technique in techniques():
        if technique.is_on(settings):
            rules += technique.effectless
        else:
            off = f"{technique.switch} is false"
            rules.append(Effectless(lambda _: True, off, technique.details))
    rules += (Effectless(*rule) for rule in _EFFECTLESS)
    if len(settings.tasks) == 1:
        late = [technique for technique in techniques() if technique.from_second_task]
        names = ["composition", "joint", *(name for t in late for name in _idle_at_first(t))]
        rules.append(Effectless(lambda _: True, "there is only one task", tuple(names)))
    return {
        name: rule.reason
        for rule in reversed(rules)  # the first reason counts
        if rule.applies(settings)
        for name in rule.settings
    }


def _idle_at_first(technique: Technique) -> tuple[str, ...]:
    """Return its settings without effect on a first task.

    A switch that is on by default is not one of them: resetting it would turn the technique on.
    """
    is_off_by_default = technique.settings.model_fields[technique.switch].default is False
    return (*technique.details, *([technique.switch] if is_off_by_default else ()))


def ineffective(settings: SettingFields, given: Collection[str]) -> list[str]:
    """Return one line for each setting that the user wrote and that changes nothing.

    Args:
        settings: The settings of the run.
        given: Names that the user wrote; a setting with its default value is not reported.
    """
    reasons = effectless(settings)
    tasks = [task_name(entry) for entry in settings.tasks]
    strangers = [
        f"{setting}.{name} has no effect here: no task is called {name}"
        for setting in referring(type(settings), Refers.TASKS)
        if setting in given
        and setting not in reasons
        and isinstance(by_task := getattr(settings, setting), dict)
        for name in by_task
        if name not in tasks
    ]
    return strangers + [
        f"{name} has no effect here: {reasons[name]}"
        for name, field in type(settings).model_fields.items()
        if name in reasons and name in given and getattr(settings, name) != field.default
    ]
