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
from plora_cl.checkpoint.format.pickle_gate import (
    MAX_DEPTH,
    MAX_INT_BITS,
    MAX_PICKLE_BYTES,
    PICKLE_RECORD,
)
from plora_cl.errors import CheckpointError

_PROTOCOL = 2  # what torch.save uses, and the weights-only reader knows
_VERSION = b"3\n"
_TYPED: dict[torch.dtype, type] = {
    getattr(torch, name): getattr(torch, storage) for storage, name in STORAGES.items()
}
_PLAIN = frozenset({float, bool, type(None)})
_UNREADABLE = (ValueError, RecursionError, OverflowError)
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

    Raises:
        CheckpointError: `harmless_pickle` would refuse it; the message names where. To run that
            takes microseconds for each value, while training waits; these checks take none.
    """
    buffer, strings = io.BytesIO(), dict[str, str]()
    pickler = _Pickler(buffer)
    try:
        pickler.dump(_with_shared_strings(tree, strings, MAX_DEPTH))
        "".join(strings).encode()
    except _UNREADABLE:
        require_readable(tree)
        raise
    if buffer.tell() > MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"the state without the elements of its tensors takes {buffer.tell()} bytes, at most "
            f"{MAX_PICKLE_BYTES} are allowed: hold many numbers as one tensor"
        )
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
    view: memoryview = torch.tensor([], dtype=torch.uint8, device="cpu").set_(storage).numpy().data
    return view


def require_readable(node: Any, path: str = "", levels: int = MAX_DEPTH) -> None:
    """Make sure that readers accept a tree of dicts, lists, plain values and tensors.

    Raises:
        CheckpointError: They do not; the message names where.
    """
    place = path.removeprefix("/state").encode("ascii", "backslashreplace").decode() or "/"
    at = f"the state at '{place}'"
    if isinstance(node, Mapping | list | tuple):
        if levels < 0:
            raise CheckpointError(f"{at[:200]} is nested more than {MAX_DEPTH} levels deep")
        if isinstance(node, Mapping):
            for key, value in node.items():
                require_readable(key, f"{path}/{key} (a key)", levels - 1)
                require_readable(value, f"{path}/{key}", levels - 1)
        else:
            for index, value in enumerate(node):
                require_readable(value, f"{path}/{index}", levels - 1)
    elif type(node) is str:
        try:
            node.encode()
        except UnicodeEncodeError as error:
            raise CheckpointError(
                f"{at} is a text with half a character, which UTF-8 cannot write: "
                f"{node[error.start : error.end]!a}; encode it with errors='backslashreplace'"
            ) from error
    elif type(node) is int:
        if node.bit_length() > MAX_INT_BITS:
            raise CheckpointError(
                f"{at} is an integer of {node.bit_length()} bits, at most {MAX_INT_BITS} are "
                "allowed: hold it as a text or a tensor"
            )
    elif not isinstance(node, Tensor) and type(node) not in _PLAIN:
        raise CheckpointError(f"{at} is a {type(node).__module__}.{type(node).__qualname__}")


def _with_shared_strings(node: Any, seen: dict[str, str], levels: int) -> Any:
    # Pickle writes a string object once: sharing equal ones makes bytes depend on values alone.
    kind = type(node)
    if kind is str:
        return seen.setdefault(node, node)
    if kind in _PLAIN or kind is Tensor:
        return node
    if levels < 0:
        raise ValueError("nested too deeply")
    if kind is dict or isinstance(node, Mapping):
        return {
            seen.setdefault(key, key)
            if type(key) is str
            else _with_shared_strings(key, seen, levels): value
            if type(value) is Tensor
            else _with_shared_strings(value, seen, levels - 1)
            for key, value in node.items()
        }
    if isinstance(node, list | tuple):
        return [_with_shared_strings(item, seen, levels - 1) for item in node]
    if isinstance(node, Tensor) or (kind is int and node.bit_length() <= MAX_INT_BITS):
        return node
    raise ValueError("not plain")
