"""Settings and rules of lateral connections; loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from plora_cl.impact import Impact
from plora_cl.model.settings import ModelSettings
from plora_cl.setting_types import Rank, Switch
from plora_cl.technique import Contradiction, Technique


class LateralSettings(ModelSettings):
    """Settings of lateral connections."""

    use_lateral: Annotated[Switch, Impact.STRUCTURAL] = False
    """Lateral connections: each task also reads the features of earlier adapters."""
    lateral_rank: Annotated[Rank, Impact.STRUCTURAL] = 32
    """Inner size of the network of a lateral connection."""


def _contradictions(settings: LateralSettings) -> Iterator[Contradiction]:
    if not settings.task_adapters:
        yield Contradiction(
            ("task_adapters", "use_lateral"),
            "lateral connections read the features of earlier adapters, and tasks have none; "
            f"switch them off ({LATERAL.way_off}) or give tasks adapters (task_adapters: true)",
        )


LATERAL = Technique(
    name="lateral",
    title="lateral connections",
    settings=LateralSettings,
    switch="use_lateral",
    shape_settings=("use_lateral", "lateral_rank"),
    contradictions=_contradictions,
)
