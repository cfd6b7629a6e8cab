"""O-LoRA: keep each task's adapter orthogonal to the subspaces of earlier ones.

Source: Wang et al. 2023, "Orthogonal Subspace Learning for Language Model Continual Learning"
(arXiv 2310.14152), eq. 7 and 8. The paper squares the overlaps; its code takes absolute values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from plora_cl.errors import MethodError
from plora_cl.methods.base import ContinualMethod
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import StateDict

Form: TypeAlias = Literal["absolute", "squared"]


class OrthogonalLora(ContinualMethod):
    """Penalises ``sum |A_prev A_new^T|`` over adapted layers and earlier adapters.

    It remembers nothing by itself: the earlier adapters are part of the model.

    Args:
        strength: lambda_ortho, above 0.
        form: ``absolute`` or ``squared`` overlaps.
    """

    name = "olora"

    def __init__(self, *, strength: float, form: Form = "absolute") -> None:
        self._strength, self._form = strength, form
        self._task = -1
        self._earlier: dict[str, Tensor] = {}

    def check(self, model: ContinualClassifier) -> None:
        """Make sure that the penalty counts.

        Raises:
            MethodError: The strength is not positive.
        """
        if self._strength <= 0:
            raise MethodError(
                f"olora: lambda_ortho is {self._strength:g}, so it has no effect; raise it, or "
                "switch it off with --no-orthogonal"
            )

    def grow(self, model: ContinualClassifier, task: int) -> None:
        """Forget what was derived from the adapters that there were before."""
        self._task = -1

    def load_state_dict(self, state: StateDict, /) -> None:
        """Forget what was derived from the adapters as they were."""
        self._task = -1

    def load_memory(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Forget what was derived from the adapters as they were."""
        self._task = -1

    def penalty(self, model: ContinualClassifier, task: int) -> Tensor | None:
        """Return the weighted overlap with all earlier adapters; None for the first task."""
        if task == 0:
            return None
        earlier = self._concatenated(model, task)
        new = model.adapters.a_matrices(task)
        overlaps = [earlier[layer] @ a.T for layer, a in new.items()]
        if self._form == "absolute":
            terms = [overlap.abs().sum() for overlap in overlaps]
        else:
            terms = [overlap.square().sum() for overlap in overlaps]
        return self._strength * torch.stack(terms).sum()

    def overlap(self, model: ContinualClassifier, task: int) -> float:
        """Return the scale-free overlap ``||Q_prev^T Q_new||_F^2 / r``, mean over layers.

        Q are orthonormal bases of the row spaces of A: 0 is orthogonal, 1 is contained. The
        penalty alone would not tell, because it also falls when A_new merely shrinks.
        """
        if task == 0:
            return 0.0
        earlier = self._concatenated(model, task)
        shares = [
            (_row_basis(earlier[layer]) @ _row_basis(a.detach()).T).square().sum() / len(a)
            for layer, a in model.adapters.a_matrices(task).items()
        ]
        return float(torch.stack(shares).mean())

    def _concatenated(self, model: ContinualClassifier, task: int) -> dict[str, Tensor]:
        """Return the A matrices of all earlier tasks, ``[task * r, in]`` for each layer."""
        # They are frozen while the task is learned, so one concatenation a task is enough
        if task != self._task:
            stacks = [model.adapters.a_matrices(earlier) for earlier in range(task)]
            self._earlier = {
                layer: torch.cat([stack[layer].detach() for stack in stacks])
                for layer in model.adapters.a_matrices(task)
            }
            self._task = task
        return self._earlier


def _row_basis(matrix: Tensor) -> Tensor:
    """Return an orthonormal basis ``[rank, columns]`` of the rows of ``matrix``."""
    _, values, basis = torch.linalg.svd(matrix.cpu().double(), full_matrices=False)
    tolerance = values.max() * max(matrix.shape) * torch.finfo(matrix.dtype).eps
    return basis[values > tolerance]
