"""Prompts for texts of one class of one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Self, TypeAlias

Templates: TypeAlias = Sequence[str] | Mapping[str, Sequence[str]] | None
"""Templates for all tasks, or by name of the task; None for the default of the model."""

FOR_BASE_MODELS = (
    'A text from the collection "{task}", filed under "{label}":\n\n',
    "Category: {label}\nText:",
    "This is an example of {label}:\n\n",
)
"""Templates for models that continue a text."""

FOR_INSTRUCTION_MODELS = (
    'Write a short text about "{label}", as in the collection "{task}". Answer with the text only.',
    'Write two sentences that belong to the category "{label}". Answer with the sentences only.',
    'Give an example of a text filed under "{label}". Answer with the text only.',
)
"""Templates for models that follow requests."""

_PLACEHOLDERS = {"task", "label"}


def require_valid(template: str) -> None:
    """Make sure that a prompt can be made from ``template``.

    Raises:
        ValueError: It lacks ``{label}``, has an unknown placeholder, or has a format.
    """
    try:
        found = [
            (field, shape, conversion)
            for _, field, shape, conversion in Formatter().parse(template)
            if field is not None
        ]
    except ValueError as error:
        raise ValueError(
            f"{template!r}: {error}; write {{{{ and }}}} for braces that stand for themselves"
        ) from None
    fields = {field for field, _, _ in found}
    unknown = sorted(fields - _PLACEHOLDERS)
    if unknown:
        raise ValueError(f"{template!r}: {{{unknown[0]}}} is unknown; use {{label}} and {{task}}")
    shaped = next((field for field, shape, conversion in found if shape or conversion), None)
    if shaped is not None:
        raise ValueError(
            f"{template!r}: {{{shaped}}} takes no format; write {{label}} and {{task}} alone"
        )
    if "label" not in fields:
        raise ValueError(
            f"{template!r} does not contain {{label}}, so every class would get the same prompt"
        )


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of one task, a few for each class.

    Attributes:
        task: Name of the task.
        classes: Names of its classes, in label order.
        templates: Texts with ``{label}`` and optionally ``{task}``; chunks use them in turn.
    """

    task: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]

    @classmethod
    def of(
        cls, task: str, classes: Sequence[str], templates: Templates, *, instruction_tuned: bool
    ) -> Self:
        """Return the prompts of ``task``.

        Args:
            task: Name of the task.
            classes: Names of its classes.
            templates: Templates of the user.
            instruction_tuned: Which default applies if the user has none for this task.
        """
        chosen = templates.get(task) if isinstance(templates, Mapping) else templates
        own = FOR_INSTRUCTION_MODELS if instruction_tuned else FOR_BASE_MODELS
        return cls(task, tuple(classes), tuple(chosen or own))

    def prompt(self, label: int, chunk: int) -> str:
        """Return the prompt of chunk number ``chunk`` of the class with index ``label``."""
        template = self.templates[chunk % len(self.templates)]
        return template.format(task=readable(self.task), label=readable(self.classes[label]))


def readable(name: str) -> str:
    """Return a name with spaces for underscores: ``yahoo_answers`` becomes ``yahoo answers``."""
    return " ".join(name.replace("_", " ").split())
