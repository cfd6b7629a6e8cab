"""How a run of `CheckpointManager` differs from the checkpoint it resumes."""

from __future__ import annotations

from collections.abc import Mapping

from plora_cl.checkpoint.snapshot.compatibility import SettingChange, value_changes
from plora_cl.checkpoint.snapshot.snapshot import RunFacts, Snapshot
from plora_cl.compute.environment import IMPACTS
from plora_cl.impact import Impact


def differences(
    snapshot: Snapshot, facts: RunFacts, constants: Mapping[str, str]
) -> list[SettingChange]:
    """Return how constants, identity and environment differ, in this order.

    Args:
        snapshot: The checkpoint.
        facts: Of this run.
        constants: SHA-256 of each group of this run.
    """
    saved = {name: ref.sha256 for name, ref in snapshot.objects.items()}
    structural = dict.fromkeys({*saved, *constants}, Impact.STRUCTURAL)
    before = snapshot.facts
    return [
        *value_changes(saved, constants, structural, prefix="constants."),
        *value_changes(before.identity, facts.identity, {}, prefix="identity."),
        *value_changes(before.environment, facts.environment, IMPACTS, prefix="environment."),
    ]
