"""How large Fisher information is, so that a lambda can be chosen for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from plora_cl.state import StateDict


def fisher_scale(fisher: Mapping[str, Tensor]) -> StateDict:
    """Return what the diagonal ``F_i`` of all parameters together looks like, as plain numbers.

    ``trace`` is their sum; ``mean``, ``median``, ``p90``, ``p99`` (percentiles) and ``max`` say how
    it is distributed, ``share_of_zeros`` in [0, 1] how much of it is exactly 0.
    ``lambda_for_unit_curvature`` is ``1 / mean``: with this lambda the penalty is on average
    ``1/2 (theta_i - theta*_i)^2``, an L2 anchor of strength 1; None where all of it is 0.

    Args:
        fisher: ``F`` by parameter, at least one element in all.
    """
    values = np.concatenate([f.detach().cpu().double().flatten().numpy() for f in fisher.values()])
    median, p90, p99 = np.percentile(values, [50, 90, 99]).tolist()
    mean = float(values.mean())
    return {
        "parameters": values.size,
        "trace": float(values.sum()),
        "mean": mean,
        "median": median,
        "p90": p90,
        "p99": p99,
        "max": float(values.max()),
        "share_of_zeros": float((values == 0).mean()),
        "lambda_for_unit_curvature": 1 / mean if mean > 0 else None,
    }


def with_laplace_lambdas(scales: Sequence[StateDict]) -> list[StateDict]:
    """Return copies of ``scales`` with ``lambda_laplace``: ``N_k / N_k+1`` for each task ``k``.

    A mean over the examples of a task stands for ``N_k`` of them, and the loss of the next task is
    a mean over ``N_k+1``: with this lambda the penalty is the Laplace approximation of the
    posterior that EWC is derived from. None for the last task, whose successor is not known, and
    for ``batched`` Fisher information, which is no estimate of the Fisher information's size.

    Args:
        scales: Each with ``task``, ``estimator`` and ``train_examples``, in the order of learning.

    Source: Kirkpatrick et al. 2017, eq. 2 and 3; Huszar 2018, "Note on the quadratic penalties in
    elastic weight consolidation" (arXiv 1712.03847).
    """
    sizes = {scale["task"]: scale["train_examples"] for scale in scales}
    return [
        scale
        | {
            "lambda_laplace": scale["train_examples"] / sizes[scale["task"] + 1]
            if scale["task"] + 1 in sizes and scale["estimator"] != "batched"
            else None
        }
        for scale in scales
    ]
