"""O-LoRA: keep each task's adapter orthogonal to the subspaces of earlier ones.

Source: Wang et al. 2023, "Orthogonal Subspace Learning for Language Model Continual Learning"
(arXiv 2310.14152), eq. 7 and 8. The paper squares the overlaps; its code (cmnfriend/O-LoRA,
``uie_trainer_lora.py``) takes absolute values and can add ``lamda_2`` times the sum of the norms
of the new matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from plora_cl.methods.base import ContinualMethod, MethodSetup
from plora_cl.methods.olora.settings import Form, OloraSettings
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import StateDict


class OrthogonalLora(ContinualMethod):
    """Penalises ``sum |A_prev A_new^T|`` over adapted layers and earlier adapters.

    With ``norm_strength`` the Frobenius norms of the new matrices, ``sum ||A_new|| + ||B_new||``
    over adapted layers, are penalised too. Both terms begin with the second task.

    It remembers nothing by itself: the earlier adapters are part of the model.

    Args:
        strength: lambda_ortho, above 0.
        form: ``absolute`` or ``squared`` overlaps.
        norm_strength: lambda_ortho_norm, at least 0; 0 leaves the norms free.
    """

    name = "olora"

    def __init__(
        self, *, strength: float, form: Form = "absolute", norm_strength: float = 0.0
    ) -> None:
        self._strength, self._form, self._norm_strength = strength, form, norm_strength
        self._task = -1
        self._earlier: dict[str, Tensor] = {}

    @classmethod
    def from_settings(cls, settings: OloraSettings, setup: MethodSetup) -> Self:
        """Return the method that ``settings`` describe."""
        return cls(
            strength=settings.lambda_ortho,
            form=settings.ortho_form,
            norm_strength=settings.lambda_ortho_norm,
        )

    def grow(self, model: ContinualClassifier, task: int) -> None:
        """Forget what was derived from the adapters before this task."""
        self._task = -1

    def load_state_dict(self, state: StateDict, /) -> None:
        """Forget what was derived from the adapters as they were."""
        self._task = -1

    def load_memory(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Forget what was derived from the adapters as they were."""
        self._task = -1

    def penalty(self, model: ContinualClassifier, task: int) -> Tensor | None:
        """Return the weighted overlaps and norms; None for the first task."""
        if task == 0:
            return None
        earlier = self._earlier_of(model, task)
        new = model.adapters.a_matrices(task)
        overlaps = [earlier[layer] @ a.T for layer, a in new.items()]
        if self._form == "absolute":
            terms = [overlap.abs().sum() for overlap in overlaps]
        else:
            terms = [overlap.square().sum() for overlap in overlaps]
        weighted = self._strength * torch.stack(terms).sum()
        if self._norm_strength > 0:
            matrices = model.adapters.parameters(task).values()
            norms = [torch.linalg.vector_norm(matrix) for matrix in matrices]
            weighted = weighted + self._norm_strength * torch.stack(norms).sum()
        return weighted

    def report(self, model: ContinualClassifier) -> StateDict:
        """Return, as ``adapters``, what each task's adapter looks like against earlier ones.

        ``overlap`` in [0, 1] is that of the method of that name, and ``overlap_by_chance`` the
        one that a random A would have, ``rows of A_prev / in``; both None for the first task.
        ``a_norm`` and ``b_norm`` are Frobenius norms, mean over layers. A starts at about
        ``sqrt(r / 3)``: an overlap that fell together with ``a_norm`` was bought by an adapter
        that vanishes, the trivial minimum of the penalty.
        """
        return {
            "adapters": [
                {
                    "task": task,
                    "overlap": self.overlap(model, task) if task else None,
                    "overlap_by_chance": _overlap_by_chance(model, task) if task else None,
                    "a_norm": _mean_norm(model, task, ".lora_A"),
                    "b_norm": _mean_norm(model, task, ".lora_B"),
                }
                for task in range(model.tasks)
            ]
        }

    def no_effect_on(self, model: ContinualClassifier) -> dict[str, str]:
        """Return what the composition keeps out of reach."""
        if model.composition == "cumulative":
            return {}
        return {
            "predictions of earlier tasks": "in the isolated composition only the adapter of the "
            "task itself acts, so orthogonality shapes each new adapter and nothing else; set "
            "`composition: cumulative` to let it count"
        }

    def overlap(self, model: ContinualClassifier, task: int) -> float:
        """Return the scale-free overlap ``||Q_prev^T Q_new||_F^2 / r``, mean over layers.

        Q are orthonormal bases of the row spaces of A: 0 is orthogonal, 1 is contained. The
        penalty alone would not tell, because it also falls when A_new merely shrinks.
        """
        if task == 0:
            return 0.0
        earlier = _concatenated(model, task)
        shares = [
            (_row_basis(earlier[layer]) @ _row_basis(a.detach()).T).square().sum() / len(a)
            for layer, a in model.adapters.a_matrices(task).items()
        ]
        return float(torch.stack(shares).mean())

    def _earlier_of(self, model: ContinualClassifier, task: int) -> dict[str, Tensor]:
        # They are frozen while the task is learned, so one concatenation a task is enough
        if task != self._task:
            self._earlier, self._task = _concatenated(model, task), task
        return self._earlier


def _concatenated(model: ContinualClassifier, task: int) -> dict[str, Tensor]:
    """Return the A matrices of all tasks before ``task``, ``[task * r, in]`` for each layer."""
    stacks = [model.adapters.a_matrices(earlier) for earlier in range(task)]
    return {
        layer: torch.cat([stack[layer].detach() for stack in stacks])
        for layer in model.adapters.a_matrices(task)
    }


def _overlap_by_chance(model: ContinualClassifier, task: int) -> float:
    shares = [min(1.0, len(a) / a.shape[1]) for a in _concatenated(model, task).values()]
    return sum(shares) / len(shares)


def _mean_norm(model: ContinualClassifier, task: int, ending: str) -> float:
    """Return the Frobenius norm of a task's A or B matrices, mean over layers."""
    matrices = model.adapters.parameters(task).items()
    norms = [torch.linalg.vector_norm(m.detach()) for name, m in matrices if name.endswith(ending)]
    return float(torch.stack(norms).mean())


def _row_basis(matrix: Tensor) -> Tensor:
    """Return an orthonormal basis ``[rank, columns]`` of the rows of ``matrix``."""
    _, values, basis = torch.linalg.svd(matrix.cpu().double(), full_matrices=False)
    tolerance = values.max() * max(matrix.shape) * torch.finfo(matrix.dtype).eps
    return basis[values > tolerance]
