"""A tree of plain values and tensors as the records of a PyTorch archive.

`torch.load(weights_only=True)` reads them as if `torch.save` had written them. Written here, the
bytes do not depend on the version of PyTorch, and one comparison is the only Python code that runs
for each plain value: `torch.save` takes long enough in the background to slow training down.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from copyreg import dispatch_table
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch._utils import _rebuild_tensor_v2, _rebuild_tensor_v3

from plora_cl.checkpoint.disk.filesystem import ReadableBytes
from plora_cl.checkpoint.format.dtypes import STORAGES
from plora_cl.checkpoint.format.pickle_gate import PICKLE_RECORD

_PROTOCOL = 2  # what torch.save uses, and the weights-only reader knows
_VERSION = b"3\n"
_TYPED: dict[torch.dtype, type] = {
    getattr(torch, name): getattr(torch, storage) for storage, name in STORAGES.items()
}
_Reduced: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...]]


class Record(NamedTuple):
    """One file of the archive."""

    name: str
    content: ReadableBytes


def records_of(tree: Mapping[str, Any]) -> list[Record]:
    """Return the records of an archive that holds ``tree``: equal trees give equal bytes.

    Args:
        tree: Dicts, lists, plain values and dense CPU tensors; tensors that share a storage do so
            in the archive.
    """
    buffer = io.BytesIO()
    pickler = _Pickler(buffer)
    pickler.dump(_with_shared_strings(tree, {}))
    return [
        Record(PICKLE_RECORD, buffer.getvalue()),
        Record("archive/byteorder", sys.byteorder.encode()),
        *(
            Record(f"archive/data/{key}", block)
            for key, block in enumerate(map(_bytes_of, pickler.storages))
        ),
        Record("archive/version", _VERSION),
    ]


class _Stored(NamedTuple):
    """Represents a storage in the pickle."""

    persistent_id: tuple[str, type, str, str, int]


class _Pickler(pickle.Pickler):
    """Collects the storages of the tensors it meets, in the order it meets them."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=_PROTOCOL)
        self.dispatch_table = {**dispatch_table, Tensor: self._reduce}
        self.storages: list[torch.UntypedStorage] = []
        self._stored: dict[tuple[int, torch.dtype], _Stored] = {}
        self._keys: dict[int, str] = {}
        self._no_hooks: OrderedDict[str, Any] = OrderedDict()

    def persistent_id(self, value: Any) -> Any:
        # Called for every value of the tree: must be fast.
        return value.persistent_id if type(value) is _Stored else None

    def _reduce(self, tensor: Tensor) -> _Reduced:
        layout = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), False)
        storage = tensor.untyped_storage()
        stored = self._stored_as(storage, tensor)
        if tensor.dtype in _TYPED:
            return _rebuild_tensor_v2, (stored, *layout, self._no_hooks)
        return _rebuild_tensor_v3, (stored, *layout, self._no_hooks, tensor.dtype)

    def _stored_as(self, storage: torch.UntypedStorage, tensor: Tensor) -> _Stored:
        identity = storage._cdata
        known = self._stored.get((identity, tensor.dtype))
        if known is None:
            if identity not in self._keys:
                self._keys[identity] = str(len(self.storages))
                self.storages.append(storage)
            kind = _TYPED.get(tensor.dtype, torch.UntypedStorage)
            size = storage.nbytes() // (tensor.element_size() if tensor.dtype in _TYPED else 1)
            known = _Stored(("storage", kind, self._keys[identity], "cpu", size))
            self._stored[identity, tensor.dtype] = known
        return known


def _bytes_of(storage: torch.UntypedStorage) -> ReadableBytes:
    view: memoryview = torch.tensor([], dtype=torch.uint8).set_(storage).numpy().data
    return view


def _with_shared_strings(node: Any, seen: dict[str, str]) -> Any:
    # Pickle writes a string object once: sharing equal ones makes bytes depend on values alone.
    kind = type(node)
    if kind is str:
        return seen.setdefault(node, node)
    if kind is dict or isinstance(node, Mapping):
        return {
            seen.setdefault(key, key) if type(key) is str else key: value
            if type(value) is Tensor
            else _with_shared_strings(value, seen)
            for key, value in node.items()
        }
    if isinstance(node, list | tuple):
        return [_with_shared_strings(item, seen) for item in node]
    return node
