"""A task as an ONNX model, checked with onnxruntime."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel

from plora_cl.errors import ModelError
from plora_cl.export.weights import TaskWeights, fill
from plora_cl.extensions import told
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.model.pooling import token_mean
from plora_cl.pretrained.loading import without_pooler

FILE = "model.onnx"
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "logits"
_LARGEST = 1 << 31  # bytes of a protocol buffer


class _Merged(nn.Module):
    """An encoder without adapters, pooling and a head."""

    def __init__(self, encoder: nn.Module, head: nn.Linear, pooling: str) -> None:
        super().__init__()
        self.encoder, self.head, self.pooling = encoder, head, pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        states: Tensor = hidden.last_hidden_state
        pooled = states[:, 0] if self.pooling == "cls" else token_mean(states, attention_mask)
        logits: Tensor = self.head(pooled)
        return logits


class _Lateral(nn.Module):
    """All adapters that a task with a lateral connection reads, over one encoder."""

    def __init__(self, model: ContinualClassifier, task: int) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids, attention_mask, self.task)
        return logits


def save_onnx(
    weights: TaskWeights,
    model: ContinualClassifier,
    task: int,
    probe: tuple[Tensor, Tensor],
    folder: Path,
) -> None:
    """Save the model of a task; batch and length are dynamic.

    Args:
        weights: Of the task.
        model: What they are of.
        task: Its index.
        probe: Token ids and mask ``[batch, tokens]`` to trace with.
        folder: Where to.

    Raises:
        ModelError: PyTorch cannot export this encoder, or the model is larger than 2 GB.
    """
    dynamic = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    try:
        module = _module(weights, model, task)
        with torch.no_grad():
            program = torch.onnx.export(
                module,
                probe,
                dynamo=True,
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_shapes=(dynamic, dynamic),
                verbose=False,
            )
        assert program is not None
    except Exception as error:  # of the tracer: any
        raise ModelError(
            f"PyTorch cannot export this encoder to ONNX: {told(error)}; use --format transformers"
        ) from error
    size = sum(t.numel() * t.element_size() for t in {**weights.encoder}.values())
    program.save(folder / FILE, external_data=size >= _LARGEST // 2)


def _module(weights: TaskWeights, model: ContinualClassifier, task: int) -> nn.Module:
    config = deepcopy(model.encoder.config)
    config._attn_implementation = "eager"  # type: ignore[union-attr]
    if weights.has_lateral:
        copy = deepcopy(model).cpu().eval()
        copy.encoder.set_attn_implementation("eager")  # type: ignore[operator]
        return _Lateral(copy, task)
    with torch.random.fork_rng():
        encoder: Any = without_pooler(AutoModel.from_config(config, dtype=torch.float32))
    fill(encoder, weights.merged())
    return _Merged(encoder, weights.head, model.adapted.pooling).eval().requires_grad_(False)


def onnx_logits(folder: Path, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return what onnxruntime computes with an exported model."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])
    feeds = dict(zip(INPUTS, (input_ids.numpy(), attention_mask.numpy()), strict=True))
    (logits,) = session.run([OUTPUT], feeds)
    return torch.from_numpy(logits)
