"""Settings and rules of elastic weight consolidation; loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

from plora_cl.impact import Impact
from plora_cl.model.settings import ModelSettings
from plora_cl.setting_types import NotNegative, Positive, Ratio, Switch
from plora_cl.technique import Contradiction, Effectless, Technique

_TRAJECTORY, _STRUCTURAL = Impact.TRAJECTORY, Impact.STRUCTURAL

Mode: TypeAlias = Literal["offline", "online"]
Estimator: TypeAlias = Literal["empirical", "exact", "sampled", "batched"]


class EwcSettings(ModelSettings):
    """Settings of elastic weight consolidation."""

    use_ewc: Annotated[Switch, _STRUCTURAL] = True
    """Elastic weight consolidation: hold shared parameters that earlier tasks need."""
    lambda_ewc: Annotated[NotNegative, _TRAJECTORY] = 10_000.0
    """Strength of EWC."""
    ewc_mode: Annotated[Mode, _STRUCTURAL] = "online"
    """EWC memory: offline keeps one Fisher estimate per task, online a decayed sum."""
    ewc_fisher: Annotated[Estimator, _TRAJECTORY] = "empirical"
    """Fisher estimator: true label (empirical), all classes, a sampled one, or mean of a batch."""
    ewc_gamma: Annotated[Ratio, _TRAJECTORY] = 1.0
    """Decay of the online sum per task, in (0, 1]."""
    ewc_fisher_examples: Annotated[Positive, _TRAJECTORY] = 200
    """Training examples per task for the Fisher estimate."""
    ewc_fisher_batch_size: Annotated[Positive, _TRAJECTORY] = 32
    """Examples whose mean gradient is squared by the batched estimator; wants a larger lambda."""


def _contradictions(settings: EwcSettings) -> Iterator[Contradiction]:
    if settings.shared == "none":
        yield Contradiction(
            ("shared", "use_ewc"),
            "EWC protects shared parameters and shared is none, so it could have no effect; "
            f"share some (shared: layernorm) or switch EWC off ({EWC.way_off})",
        )
    if settings.ewc_gamma == 0 and settings.ewc_mode == "online":
        yield Contradiction(
            ("ewc_gamma", "use_ewc"),
            "ewc_gamma is 0, so EWC would keep nothing of earlier tasks; raise it, keep one "
            f"estimate per task (ewc_mode: offline), or switch EWC off ({EWC.way_off})",
        )


EWC = Technique(
    name="ewc",
    title="EWC",
    settings=EwcSettings,
    switch="use_ewc",
    factory="plora_cl.methods.ewc.penalty:Ewc.from_settings",
    flags={"lambda_ewc": "STRENGTH"},
    strength="lambda_ewc",
    contradictions=_contradictions,
    effectless=(
        Effectless(lambda s: s.ewc_mode == "offline", "ewc_mode is offline", ("ewc_gamma",)),
        Effectless(
            lambda s: s.ewc_fisher != "batched",
            "ewc_fisher is not batched",
            ("ewc_fisher_batch_size",),
        ),
    ),
)
