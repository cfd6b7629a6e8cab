"""The content of a checkpoint, read without PyTorch: plain values, and the shapes of tensors.

Nothing is executed: every instruction and name of a pickle passes `harmless_pickle` first, and the
names stand for descriptions here.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

from plora_cl.bounded_reading import parse_json
from plora_cl.checkpoint.format.dtypes import DTYPES, SAFETENSORS, STORAGES
from plora_cl.checkpoint.format.pickle_gate import MAX_DEPTH, PICKLE_RECORD, harmless_pickle
from plora_cl.errors import CorruptCheckpointError

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format."""

_END = object()
_UNTYPED = "untyped"
_MALFORMED = (
    pickle.UnpicklingError, struct.error,
    KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError, EOFError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor without its elements.

    Attributes:
        dtype: Its name, such as ``float32``.
        shape: Its dimensions.
        bytes: Of its elements.
    """

    dtype: str
    shape: tuple[int, ...]
    bytes: int


def read_content(file: BinaryIO) -> dict[str, Any]:
    """Return the content of an open, verified checkpoint file, a `TensorInfo` for each tensor.

    Raises:
        CorruptCheckpointError: It is not what `encode` writes.
    """
    pickled = harmless_pickle(file)
    try:
        content = _Reader(io.BytesIO(pickled)).load()
    except _MALFORMED as error:
        raise CorruptCheckpointError(f"{PICKLE_RECORD} is malformed: {error}") from error
    for _ in leaves(content):
        pass  # refuses endless nesting
    if not isinstance(content, dict) or not isinstance(content.get("state"), dict):
        raise CorruptCheckpointError(f"{PICKLE_RECORD} is not a mapping with a state")
    if not isinstance(content.get("environment", {}), dict):
        raise CorruptCheckpointError(f"{PICKLE_RECORD} has no environment that is a mapping")
    return content


def tensors_in(tree: object) -> dict[str, TensorInfo]:
    """Return the tensors of a tree that `read_content` read, by path.

    Raises:
        CorruptCheckpointError: It is nested endlessly.
    """
    return {path: leaf for path, leaf in leaves(tree) if isinstance(leaf, TensorInfo)}


def object_tensors(file: BinaryIO) -> dict[str, TensorInfo]:
    """Return the tensors of an open object, a safetensors file, by name.

    Raises:
        CorruptCheckpointError: It is not one.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise ValueError(f"a header of {length} bytes")
        header: dict[str, Any] = parse_json(file.read(length))
        return {name: _described(d) for name, d in header.items() if name != "__metadata__"}
    except _MALFORMED as error:
        raise CorruptCheckpointError(f"not a safetensors file: {error}") from error


def _described(entry: dict[str, Any]) -> TensorInfo:
    dtype, shape = str(entry["dtype"]), tuple(map(int, entry["shape"]))
    begin, end = entry["data_offsets"]
    name = SAFETENSORS.get(dtype, dtype.lower())
    if name in DTYPES and prod(shape) * DTYPES[name].bytes != end - begin:
        raise ValueError(f"a tensor of {dtype} {list(shape)} in {end - begin} bytes")
    return TensorInfo(name, shape, end - begin)


def leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield path and value of everything in a tree that is neither a dict nor a list.

    Raises:
        CorruptCheckpointError: It is nested endlessly, a container occurs twice, or a key is
            neither text nor integer.
    """
    containers: set[int] = set()
    levels: list[tuple[str, Iterator[tuple[Any, Any]]]] = [("", iter([("", tree)]))]
    while levels:
        parent, items = levels[-1]
        key, node = next(items, (0, _END))
        if type(key) not in (str, int):
            raise CorruptCheckpointError("it has a key that is neither text nor integer")
        path = f"{parent}/{key}" if parent else str(key)
        if node is _END:
            levels.pop()
        elif type(node) is not dict and type(node) is not list:
            yield path, node
        elif len(levels) > MAX_DEPTH + 1 or id(node) in containers:
            raise CorruptCheckpointError("it is nested endlessly")
        else:
            containers.add(id(node))
            items = enumerate(node) if isinstance(node, list) else iter(node.items())
            levels.append((path, items))


class _Reader(pickle.Unpickler):
    """Reads what `harmless_pickle` let pass; a storage, and a dtype, is the name of a dtype."""

    def find_class(self, module: str, name: str, /) -> Any:
        if module == "torch":
            return STORAGES.get(name, name)
        return _MEANINGS[name]

    def persistent_load(self, pid: Any, /) -> str:
        kind, dtype, _, _, _ = pid
        if kind != "storage" or not isinstance(dtype, str):
            raise pickle.UnpicklingError("a reference that is not a storage")
        return dtype


def _tensor(storage: str, _: object, size: tuple[int, ...], *rest: object) -> TensorInfo:
    dtype = rest[3] if storage == _UNTYPED else storage  # after strides, gradient and hooks
    shape = tuple(map(int, size))
    return TensorInfo(str(dtype), shape, prod(shape) * DTYPES[str(dtype)].bytes)


def _hooks() -> dict[str, Any]:
    return {}


_MEANINGS: dict[str, Callable[..., Any] | str] = {
    "OrderedDict": _hooks,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor_v3": _tensor,
    "UntypedStorage": _UNTYPED,
}
