"""Copies of nested states that share nothing with the original."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from math import prod
from operator import attrgetter
from typing import Any, TypeAlias

import torch
from torch import Tensor

from plora_cl.checkpoint.snapshot.walk import is_copyable, refusals, walked
from plora_cl.errors import CheckpointError

_Strides: TypeAlias = tuple[int, ...]
_Outline: TypeAlias = tuple[torch.dtype, torch.device, torch.Size]
_Layout: TypeAlias = tuple[list[_Outline], list[_Strides]]
_Form: TypeAlias = tuple[torch.Size, _Strides]
_Kind: TypeAlias = tuple[torch.dtype, torch.device]
_outline_of: Callable[[Tensor], _Outline] = attrgetter("dtype", "device", "shape")


class HostStaging:
    """Host memory that one state after the other is copied into.

    The memory is allocated for the layout (dtypes, shapes, strides and devices, in order) of the
    first state and reused while the layout stays the same, so that a copy costs little more than
    moving the bytes. The tensors of one dtype share one block, which a checkpoint stores as one
    record. A copy has the strides of its tensor (where a tensor does not fill its memory, those of
    `torch.empty_like`): fused optimizers pair the elements of two tensors by their place in memory.

    `begin` copies everything but the bytes of tensors in host memory. `complete` copies those, on
    the first thread that calls it. Forward and backward passes do not change them, so that another
    thread can copy meanwhile; the training thread calls `complete` before it changes them.

    Tensors on a CUDA device are gathered on the device, in the order of the current stream, and
    copied to pinned memory on a separate stream: call `wait` before reading.
    """

    def __init__(self) -> None:
        self._layout: _Layout | None = None
        self._pieces: list[Tensor] = []
        self._transfers: list[_Transfer] = []
        self._pending: _PendingCopy | None = None

    def begin(self, state: Mapping[str, Any]) -> Any:
        """Return a plain copy of ``state``: mappings as dicts, tuples as lists.

        It overwrites the previous copy, and `complete` fills in the bytes of its tensors. Draws no
        random number.

        Raises:
            TypeError: Something in it is neither a tensor nor plain; the message names where.
        """
        copy, slots, sources = walked(state)
        is_shared = len(set(map(id, sources))) < len(sources)
        distinct = (
            list({id(source): source for source in sources}.values()) if is_shared else sources
        )
        self._lay_out(distinct, state)
        pieces = self._pieces
        if is_shared:
            piece_of = dict(zip(map(id, distinct), pieces, strict=True))
            pieces = [piece_of[id(source)] for source in sources]
        for (container, key), piece in zip(slots, pieces, strict=True):
            container[key] = piece
        self._pending = _PendingCopy(*self._start_transfers(distinct))
        return copy

    def complete(self) -> None:
        """Copy the tensors of the last `begin`, unless done; they may change afterwards.

        Raises:
            CheckpointError: One has changed already: the copy is torn.
        """
        if self._pending is not None:
            self._pending.complete()

    def wait(self) -> None:
        """Return when the bytes of the last copy have arrived in host memory."""
        for transfer in self._transfers:
            transfer.wait()

    def _lay_out(self, sources: list[Tensor], state: Mapping[str, Any]) -> None:
        # Also the same tensor may have another layout: `module.half()` sets `parameter.data`.
        try:
            layout = list(map(_outline_of, sources)), list(map(Tensor.stride, sources))
        except RuntimeError as error:  # a sparse tensor has no strides
            raise next(refusals(state), error) from None
        is_new = layout != self._layout
        if any(map(Tensor.is_inference, sources)) or (
            is_new and not all(map(is_copyable, sources))
        ):
            raise next(refusals(state))
        if is_new:
            self._allocate(layout)

    def _allocate(self, layout: _Layout) -> None:
        self.wait()
        self._layout = None  # until all is allocated
        by_kind: dict[_Kind, list[int]] = {}
        for index, (dtype, device, _) in enumerate(layout[0]):
            by_kind.setdefault((dtype, device), []).append(index)
        pieces: dict[int, Tensor] = {}
        self._transfers = []
        for (dtype, device), indices in by_kind.items():
            forms = [_form(layout[0][index][2], layout[1][index]) for index in indices]
            is_cuda = device.type == "cuda"
            size = sum(prod(shape) for shape, _ in forms)
            block = torch.zeros(size, dtype=dtype, device="cpu", pin_memory=is_cuda)
            pieces.update(zip(indices, _views(block, forms), strict=True))
            if is_cuda:
                self._transfers.append(_Transfer(block, forms, device, indices))
        self._pieces = [pieces[index] for index in range(len(pieces))]
        self._layout = layout

    def _start_transfers(self, sources: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Start to copy tensors on a device; return targets and sources of the others."""
        if not self._transfers:
            return self._pieces, sources
        for transfer in self._transfers:
            transfer.start([sources[index] for index in transfer.indices])
        moving = {index for transfer in self._transfers for index in transfer.indices}
        on_host = [index for index in range(len(sources)) if index not in moving]
        return [self._pieces[i] for i in on_host], [sources[i] for i in on_host]


class _PendingCopy:
    """Tensors in host memory, copied once, by the first thread that asks."""

    def __init__(self, targets: list[Tensor], sources: list[Tensor]) -> None:
        self._targets, self._sources = targets, sources
        # Each operation that writes to a tensor increments its version.
        self._versions = [source._version for source in sources]
        self._copying = threading.Lock()
        self._is_copied = False
        self._is_torn = False

    def complete(self) -> None:
        if not self._is_copied:
            with self._copying:
                if not self._is_copied:
                    self._copy()
        if self._is_torn:
            raise CheckpointError(
                "tensors changed before the save had copied them: nothing may write to them until "
                "settle(), or save() of a CheckpointManager, returns; this is a defect of the loop"
            )

    def _copy(self) -> None:
        shapes = [source.shape for source in self._sources]
        self._is_torn = shapes != [target.shape for target in self._targets]
        if self._sources and not self._is_torn:
            with torch.no_grad():
                torch._foreach_copy_(self._targets, self._sources)
        self._is_torn |= [source._version for source in self._sources] != self._versions
        self._is_copied = True


class _Transfer:
    """Moves tensors of one dtype from one CUDA device into a pinned block."""

    def __init__(
        self, block: Tensor, forms: Sequence[_Form], device: torch.device, indices: Sequence[int]
    ) -> None:
        self.indices = indices
        self._block = block
        self._staging = torch.empty_like(block, device=device, pin_memory=False)
        self._pieces = _views(self._staging, forms)
        self._stream = torch.cuda.Stream(device)
        self._done = torch.cuda.Event()

    @torch.no_grad()
    def start(self, sources: Sequence[Tensor]) -> None:
        current = torch.cuda.current_stream(self._stream.device)
        current.wait_event(self._done)  # the copy before this one has left the staging memory
        torch._foreach_copy_(self._pieces, list(sources))
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._block.copy_(self._staging, non_blocking=True)
            self._done.record(self._stream)

    def wait(self) -> None:
        self._done.synchronize()


def separate_copy(state: Mapping[str, Any]) -> Any:
    """Return a copy of ``state`` that shares no memory with it; strides are kept.

    A tensor that occurs twice does so in the copy. For handing out state: optimizers keep and
    change the tensors they are given.

    Raises:
        TypeError: Something in it is neither a tensor nor plain; the message names where.
    """
    copy, slots, sources = walked(state)
    clones = {id(source): source.detach().clone() for source in sources}
    for (container, key), source in zip(slots, sources, strict=True):
        container[key] = clones[id(source)]
    return copy


def _form(shape: torch.Size, strides: _Strides) -> _Form:
    return shape, torch.empty_like(torch.empty_strided(shape, strides, device="meta")).stride()


def _views(block: Tensor, forms: Sequence[_Form]) -> list[Tensor]:
    pieces = block.split([prod(shape) for shape, _ in forms])
    return [piece.as_strided(*form) for piece, form in zip(pieces, forms, strict=True)]
