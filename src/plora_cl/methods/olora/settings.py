"""Settings and rules of O-LoRA; loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

from plora_cl.impact import Impact
from plora_cl.model.settings import ModelSettings
from plora_cl.setting_types import NotNegative, Switch
from plora_cl.technique import Contradiction, Technique

_TRAJECTORY, _STRUCTURAL = Impact.TRAJECTORY, Impact.STRUCTURAL

Form: TypeAlias = Literal["absolute", "squared"]


class OloraSettings(ModelSettings):
    """Settings of O-LoRA."""

    use_orthogonal: Annotated[Switch, _STRUCTURAL] = False
    """O-LoRA: keep each adapter orthogonal to earlier ones; protects only where they add up."""
    lambda_ortho: Annotated[NotNegative, _TRAJECTORY] = 0.01
    """Strength of the orthogonality penalty."""
    ortho_form: Annotated[Form, _TRAJECTORY] = "absolute"
    """Overlaps are summed as absolute values or squared."""
    lambda_ortho_norm: Annotated[NotNegative, _TRAJECTORY] = 0.0
    """Strength of the penalty on the norm of each new adapter; 0 leaves it free."""


def _contradictions(settings: OloraSettings) -> Iterator[Contradiction]:
    if not settings.task_adapters:
        yield Contradiction(
            ("task_adapters", "use_orthogonal"),
            "O-LoRA keeps the adapters of tasks apart, and tasks have none; switch it off "
            f"({OLORA.way_off}) or give tasks adapters (task_adapters: true)",
        )


OLORA = Technique(
    name="olora",
    title="O-LoRA",
    settings=OloraSettings,
    switch="use_orthogonal",
    factory="plora_cl.methods.olora.penalty:OrthogonalLora.from_settings",
    flags={"lambda_ortho": "STRENGTH"},
    strength="lambda_ortho",
    contradictions=_contradictions,
    order=-1,  # before EWC: checkpoints hold the state of methods in this order
)
