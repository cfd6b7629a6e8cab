"""A pretrained encoder with LoRA adapters and the parameters that all tasks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from plora_cl.model.adapters import AdapterBank
from plora_cl.model.encoder import adapter_targets, shared_names
from plora_cl.model.pooling import middle_layers, token_mean
from plora_cl.model.settings import Pooling
from plora_cl.state import SeedFor, derived_seed


class AdaptedEncoder:
    """Encodes texts under the selected adapters.

    Args:
        encoder: Returns ``last_hidden_state [batch, tokens, hidden]``; frozen and wrapped in place.
        pooling: ``cls`` takes the first token, ``mean`` averages over the tokens of the text.
        shared: Parameters that every task may change; see `ContinualClassifier`.
        task_adapters: Tasks have adapters.
        lora_r: Rank of each adapter.
        lora_alpha: Adapter scale; contributions are multiplied by ``lora_alpha / lora_r``.
        lora_dropout: Dropout in front of the trainable adapter, in [0, 1).
        lora_target_modules: Suffixes of layer names to adapt; None for the attention projections.
        seed: Decides the initial values of the shared adapter.

    Attributes:
        adapters: Adapters of all tasks, and the shared one.
        pooling: As given.
        shared: Parameters that every task may change, by name.

    Raises:
        ModelError: The encoder has no layer to adapt or no parameter to share.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        pooling: Pooling,
        shared: str,
        task_adapters: bool,
        lora_r: int,
        lora_alpha: int,
        lora_dropout: float,
        lora_target_modules: Sequence[str] | None,
        seed: int,
    ) -> None:
        self._encoder, self.pooling = encoder, pooling
        encoder.requires_grad_(False)
        names = shared_names(encoder, shared)
        adapted = task_adapters or shared == "lora"
        targets = adapter_targets(encoder, lora_target_modules) if adapted else []
        tensors = dict(encoder.named_parameters())
        self.shared: Mapping[str, nn.Parameter] = {name: tensors.pop(name) for name in names}
        self._frozen = tensors
        self._buffers_of_base = [name for name, b in encoder.named_buffers() if b.numel()]
        self.adapters = AdapterBank(
            encoder, targets=targets, r=lora_r, alpha=lora_alpha, dropout=lora_dropout
        )
        if shared == "lora":
            first = torch.Generator().manual_seed(derived_seed(seed, 0, SeedFor.SHARED_ADAPTER))
            self.adapters.add_shared(first)
            self.shared = self.adapters.shared_parameters()

    def base(self) -> dict[str, Tensor]:
        """Return the tensors that never change, by name."""
        # Moving a module to a device replaces its buffers, unlike its parameters
        buffers = {name: self._encoder.get_buffer(name) for name in self._buffers_of_base}
        return {**self._frozen, **buffers}

    def features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        adapters: Sequence[int],
        *,
        shared: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Encode token ids ``[batch, tokens]`` into ``[batch, hidden]``.

        Args:
            input_ids: Token ids.
            attention_mask: 1 for text, 0 for padding; None without padding.
            adapters: Tasks whose adapters contribute.
            shared: Values that replace the shared parameters, by name.
        """
        hidden: Tensor = self._encoded(input_ids, attention_mask, adapters, shared)[-1]
        return hidden[:, 0] if self.pooling == "cls" else token_mean(hidden, attention_mask)

    def plain_layers(
        self, input_ids: Tensor, attention_mask: Tensor | None, *, shared: Mapping[str, Tensor]
    ) -> Tensor:
        """Encode texts at two depths without adapters, ``[batch, layers, hidden]``.

        The layers are at a half and at five sixths of the depth, see `middle_layers`. Features are
        averaged over the tokens of the text for either pooling.

        Args:
            input_ids: Token ids ``[batch, tokens]``.
            attention_mask: 1 for text, 0 for padding; None without padding.
            shared: Values that replace the shared parameters, by name.
        """
        states = self._encoded(input_ids, attention_mask, (), shared, every_layer=True)
        chosen = middle_layers(len(states) - 1)
        return torch.stack([token_mean(states[layer], attention_mask) for layer in chosen], 1)

    def _encoded(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        adapters: Sequence[int],
        shared: Mapping[str, Tensor] | None,
        *,
        every_layer: bool = False,
    ) -> Sequence[Tensor]:
        """Return the last hidden states; with ``every_layer`` embeddings and all hidden states."""
        self.adapters.select(adapters)
        texts: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if every_layer:
            texts["output_hidden_states"] = True
        if shared:
            # Not written into the parameters: a checkpoint may be reading them
            output = functional_call(self._encoder, self._by_present_name(shared), (), texts)
        else:
            output = self._encoder(**texts)
        every: Sequence[Tensor] | None = output.hidden_states if every_layer else None
        return (output.last_hidden_state,) if every is None else every

    def _by_present_name(self, shared: Mapping[str, Tensor]) -> dict[str, Tensor]:
        present = {id(p): name for name, p in self._encoder.named_parameters()}  # adapters rename
        return {present[id(self.shared[name])]: value for name, value in shared.items()}
