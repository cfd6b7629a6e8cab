"""Weights that compensate for classes of different size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor


def balanced_weights(labels: npt.NDArray[np.int64], classes: int) -> Tensor:
    """Return ``n / (k n_c)`` for each class ``c``, ``[classes]``; 1 for one without examples.

    ``n`` is the number of examples, ``n_c`` that of class ``c`` and ``k`` the number of classes
    with examples. Each class has the same total weight, and the mean weight of an example is 1, so
    that the loss keeps its scale.

    Args:
        labels: Of the training split, ``[n]``, class indices.
        classes: Classes of the task.

    Source: King and Zeng 2001, "Logistic Regression in Rare Events Data".
    """
    weights, present = np.ones(classes), np.unique(labels)
    weights[present] = compute_class_weight("balanced", classes=present, y=labels)
    return torch.from_numpy(weights).float()
