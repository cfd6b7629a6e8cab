"""Elastic weight consolidation: keep shared weights that mattered near their old values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor

from plora_cl.data.sampling import stratified_rows
from plora_cl.data.task import Task
from plora_cl.errors import IncompatibleCheckpointError
from plora_cl.methods.base import ContinualMethod, MethodSetup
from plora_cl.methods.ewc.fisher import FisherSums, diagonal_fisher
from plora_cl.methods.ewc.scale import fisher_scale, with_laplace_lambdas
from plora_cl.methods.ewc.settings import Estimator, EwcSettings, Mode
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import SeedFor, StateDict, derived_seed
from plora_cl.units import Units

Group: TypeAlias = Mapping[str, Tensor]


class _Parabola(NamedTuple):
    """``sum_i curvature_i (theta_i - centre_i)^2 + offset`` over the flat shared parameters."""

    curvature: Tensor
    centre: Tensor
    offset: float


class Ewc(ContinualMethod):
    """Quadratic penalty around the weights of finished tasks, scaled by Fisher information.

    ``offline`` keeps one ``(F, theta*)`` for each task; the penalty is
    ``strength / 2 * sum_k sum_i F_k,i (theta_i - theta*_k,i)^2`` over the shared parameters.
    ``online`` keeps one in all, with ``F* <- gamma F* + F_new`` and the latest weights as
    ``theta*``; the penalty is ``strength / 2 * sum_i gamma F*_i (theta_i - theta*_i)^2``. So a
    task counts ``gamma`` while the next one is learned, ``gamma^2`` during the one after that.

    What it remembers stays on the CPU. A step costs the same for any number of tasks: the sum
    of their parabolas is one parabola.

    Args:
        strength: lambda, above 0.
        mode: ``offline`` or ``online``.
        estimator: Of Fisher information, see `diagonal_fisher`.
        examples: Training examples of a task to estimate it from, stratified; 0 takes all.
        batch_size: Examples whose gradients the ``batched`` estimator averages.
        gamma: Decay of earlier Fisher information in ``online`` mode, in (0, 1].
        seed: Chooses the examples and the labels that ``sampled`` draws, together with the task.

    Source: Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", eq. 3;
    online: Schwarz et al. 2018, "Progress & Compress", section 4 (the norm of the penalty is that
    of ``gamma F*_{i-1}``, and ``F*_i = gamma F*_{i-1} + F_i``).
    """

    name = "ewc"

    def __init__(
        self,
        *,
        strength: float,
        mode: Mode = "online",
        estimator: Estimator = "empirical",
        examples: int = 200,
        batch_size: int = 32,
        gamma: float = 1.0,
        seed: int = 0,
    ) -> None:
        self._strength, self._mode, self._estimator = strength, mode, estimator
        self._examples, self._batch_size = examples, batch_size
        self._gamma, self._seed = gamma if mode == "online" else 1.0, seed
        self._groups: dict[str, Group] = {}
        self._scales: list[StateDict] = []
        self._parabola: _Parabola | None = None
        self._under_way: tuple[StateDict, FisherSums] | None = None  # what decides it, and it

    @classmethod
    def from_settings(cls, settings: EwcSettings, setup: MethodSetup) -> Self:
        """Return the method that ``settings`` describe."""
        return cls(
            strength=settings.lambda_ewc,
            mode=settings.ewc_mode,
            estimator=settings.ewc_fisher,
            examples=settings.ewc_fisher_examples,
            batch_size=settings.ewc_fisher_batch_size,
            gamma=settings.ewc_gamma,
            seed=setup.seed,
        )

    def penalty(self, model: ContinualClassifier, task: int) -> Tensor | None:
        """Return the weighted penalty; None before a task is finished."""
        if not self._groups:
            return None
        shared = model.shared_parameters()
        if self._parabola is None:
            self._parabola = _sum_of_parabolas(self._groups, shared, model.device)
        curvature, centre, offset = self._parabola
        theta = torch.cat([p.reshape(-1) for p in shared.values()])
        weight = self._strength * self._gamma / 2
        return weight * ((curvature * (theta - centre).square()).sum() + offset)

    def finish_task(self, model: ContinualClassifier, task: Task) -> Units[None]:
        """Add the Fisher information of ``task`` and anchor the weights as they are.

        A unit is an example.
        """
        if any(scale["task"] == task.index for scale in self._scales):
            return
        fisher = yield from self._fisher(model, task)
        self._under_way = None
        fresh = {f"fisher.{name}": value.cpu() for name, value in fisher.items()}
        self._scales.append(
            {
                "task": task.index,
                "name": task.name,
                "estimator": self._estimator,
                "examples": min(self._examples or len(task.train), len(task.train)),
                "train_examples": len(task.train),
                **fisher_scale(fisher),
            }
        )
        group = f"task-{task.index}" if self._mode == "offline" else "running"
        if group == "running" and group in self._groups:
            earlier = self._groups[group]
            fresh = {name: self._gamma * earlier[name] + value for name, value in fresh.items()}
        for name, parameter in model.shared_parameters().items():
            fresh[f"anchor.{name}"] = parameter.detach().to("cpu", copy=True)
        self._groups[group] = fresh
        self._parabola = None

    def _fisher(self, model: ContinualClassifier, task: Task) -> Units[dict[str, Tensor]]:
        wanted = self._examples or len(task.train)
        seed = derived_seed(self._seed, task.index, SeedFor.FISHER)
        examples = task.train.subset(stratified_rows(task.train.labels, wanted, seed))
        order = examples.order
        if self._estimator == "batched":
            # In order of length, or of class in the file, examples of a mini-batch would be alike
            order = np.random.default_rng(seed).permutation(len(examples))
        sums = self._sums(task.index, len(examples))
        return diagonal_fisher(
            model,
            (examples.batch(order[i : i + 1]) for i in range(sums.examples, len(order))),
            sums,
            total=len(examples),
            what=f"Fisher information of {task.name}",
        )

    def _sums(self, task: int, examples: int) -> FisherSums:
        """Return the sums under way, unless they are of something else; then empty ones."""
        decides: StateDict = {
            "task": task,
            "estimator": self._estimator,
            "seed": self._seed,
            "batch_size": self._batch_size,
            "total": examples,
        }
        if self._under_way is None or self._under_way[0] != decides:
            self._under_way = decides, _empty_sums(decides)
        return self._under_way[1]

    def report(self, model: ContinualClassifier) -> StateDict:
        """Return ``lambda_ewc`` and, as ``fisher``, the scale of ``F`` of each finished task.

        See `fisher_scale` and `with_laplace_lambdas`. A task that an older version learned, which
        did not record it, is left out.
        """
        return {"lambda_ewc": self._strength, "fisher": with_laplace_lambdas(self._scales)}

    def no_effect_on(self, model: ContinualClassifier) -> dict[str, str]:
        """Return the tasks whose Fisher information is zero: nothing protects them."""
        reason = (
            "its Fisher information is zero everywhere: the model is certain of every example; "
            "use more ewc_fisher_examples or fewer epochs"
        )
        return {scale["name"]: reason for scale in self._scales if scale["trace"] == 0}

    def state_dict(self) -> StateDict:
        """Return the scale of the Fisher information of each finished task.

        Also, as ``under_way``, an estimate that is not finished, and what decides it.
        """
        state: StateDict = {"scales": [dict(scale) for scale in self._scales]}
        if self._under_way is not None:
            decides, sums = self._under_way
            state["under_way"] = {"decides": dict(decides), "sums": sums.state_dict()}
        return state

    def load_state_dict(self, state: StateDict, /) -> None:
        """Restore `state_dict`; one of an older version has no scales."""
        self._scales = [dict(scale) for scale in state.get("scales", ())]
        self._under_way = None
        if "under_way" in state:
            decides = dict(state["under_way"]["decides"])
            self._under_way = decides, _empty_sums(decides)
            self._under_way[1].load_state_dict(state["under_way"]["sums"])

    def memory(self) -> Mapping[str, Group]:
        """Return ``fisher.<name>`` and ``anchor.<name>``: one group per task, or one in all."""
        return dict(self._groups)

    def load_memory(self, groups: Mapping[str, Group]) -> None:
        """Restore `memory`."""
        self._groups = {
            group: {name: tensor.cpu() for name, tensor in groups[group].items()}
            for group in sorted(groups, key=lambda name: (len(name), name))  # task-2 before task-10
        }
        self._parabola = None


def _empty_sums(decides: StateDict) -> FisherSums:
    return FisherSums(
        decides["estimator"],
        seed=derived_seed(decides["seed"], decides["task"], SeedFor.FISHER_LABELS),
        batch_size=decides["batch_size"],
    )


def _sum_of_parabolas(
    groups: Mapping[str, Group], shared: Mapping[str, Tensor], device: torch.device
) -> _Parabola:
    """Add ``F_k (theta - theta*_k)^2`` over the groups by completing the square.

    The curvature is ``S = sum_k F_k``, the centre ``m = sum_k F_k theta*_k / S`` and the offset
    ``sum_k F_k (theta*_k - m)^2``: no term is negative, so nothing cancels.

    Raises:
        IncompatibleCheckpointError: A group does not belong to the parameters ``shared``.
    """
    fishers = [_flat(group, "fisher", shared) for group in groups.values()]
    anchors = [_flat(group, "anchor", shared) for group in groups.values()]
    curvature = torch.stack(fishers).sum(0)
    weighted = torch.stack([f * a for f, a in zip(fishers, anchors, strict=True)]).sum(0)
    centre = torch.where(curvature > 0, weighted / curvature, anchors[-1])
    offset = sum(
        float((f * (a - centre).square()).sum()) for f, a in zip(fishers, anchors, strict=True)
    )
    dtype = next(iter(shared.values())).dtype
    return _Parabola(curvature.to(device, dtype), centre.to(device, dtype), offset)


def _flat(group: Group, kind: str, shared: Mapping[str, Tensor]) -> Tensor:
    found = {name: group[key] for name in shared if (key := f"{kind}.{name}") in group}
    if {n: t.shape for n, t in found.items()} != {n: p.shape for n, p in shared.items()}:
        raise IncompatibleCheckpointError(
            f"state_dict mismatch: ewc remembers the {kind} of {sorted(group)}, this run shares "
            f"{sorted(shared)}; resume with the `shared` setting of the checkpoint"
        )
    return torch.cat([tensor.reshape(-1).double() for tensor in found.values()])
