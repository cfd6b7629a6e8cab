"""What is in a checkpoint, read without PyTorch: plain values, and the shapes of tensors.

Nothing is executed. A pickle is read only if every instruction in it is one that `torch.save` uses
for plain containers and tensors, and the few names it may contain stand for descriptions here.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

from plora_cl.errors import CorruptCheckpointError

PICKLE_RECORD = "archive/data.pkl"
MAX_PICKLE_BYTES = 1 << 28
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format

_MAX_DEPTH = 64
_UNTYPED = "untyped"
_OPCODES = frozenset({
    "PROTO", "STOP", "MARK", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "SETITEM", "SETITEMS",
    "APPEND", "APPENDS", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
    "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1",
    "LONG4", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE", "GLOBAL",
    "REDUCE", "BINPERSID",
})  # fmt: skip
_WIDTHS = {"DoubleStorage": ("float64", 8), "FloatStorage": ("float32", 4)} | {
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "ComplexDoubleStorage": ("complex128", 16),
    "ComplexFloatStorage": ("complex64", 8),
}
_DTYPE_BYTES = dict(_WIDTHS.values()) | {
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    **{f"float8_{kind}": 1 for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")},
}
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "BOOL": 8} | {
    f"{kind}{bits}": bits for kind in "IU" for bits in (8, 16, 32, 64)
}
_MALFORMED = (
    zipfile.BadZipFile, pickle.UnpicklingError, struct.error,
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
    try:
        with zipfile.ZipFile(file) as archive:
            size = archive.getinfo(PICKLE_RECORD).file_size
            if size > MAX_PICKLE_BYTES:
                raise CorruptCheckpointError(f"{PICKLE_RECORD} has {size} bytes")
            pickled = archive.read(PICKLE_RECORD)
        _require_harmless(pickled)
        content = _Reader(io.BytesIO(pickled)).load()
    except _MALFORMED as error:
        raise CorruptCheckpointError(f"{PICKLE_RECORD} is malformed: {error}") from error
    for _ in _leaves(content):
        pass  # refuses what is no tree
    if not isinstance(content, dict) or not isinstance(content.get("state"), dict):
        raise CorruptCheckpointError(f"{PICKLE_RECORD} is not a mapping with a state")
    return content


def tensors_in(tree: object) -> dict[str, TensorInfo]:
    """Return the tensors of a tree that `read_content` read, by path.

    Raises:
        CorruptCheckpointError: It is nested endlessly.
    """
    return {path: leaf for path, leaf in _leaves(tree) if isinstance(leaf, TensorInfo)}


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
        header: dict[str, Any] = json.loads(file.read(length))
        return {name: _described(d) for name, d in header.items() if name != "__metadata__"}
    except (RecursionError, *_MALFORMED) as error:
        raise CorruptCheckpointError(f"not a safetensors file: {error}") from error


def _described(entry: dict[str, Any]) -> TensorInfo:
    dtype, shape = str(entry["dtype"]), tuple(map(int, entry["shape"]))
    begin, end = entry["data_offsets"]
    if dtype in _BITS and prod(shape) * _BITS[dtype] != 8 * (end - begin):
        raise ValueError(f"a tensor of {dtype} {list(shape)} in {end - begin} bytes")
    return TensorInfo(_dtype_name(dtype), shape, end - begin)


def _dtype_name(dtype: str) -> str:
    if dtype == "BOOL":
        return "bool"
    long = {"F": "float", "BF": "bfloat", "I": "int", "U": "uint"}
    kind = dtype.rstrip("0123456789")
    return f"{long[kind]}{dtype.removeprefix(kind)}" if kind in long else dtype.lower()


def _leaves(tree: object) -> Iterator[tuple[str, object]]:
    containers: set[int] = set()
    stack: list[tuple[str, Any, int]] = [("", tree, 0)]
    while stack:
        path, node, depth = stack.pop()
        if not isinstance(node, dict | list):
            yield path, node
            continue
        if depth > _MAX_DEPTH or id(node) in containers:
            raise CorruptCheckpointError("its content is nested endlessly")
        containers.add(id(node))
        items = list(node.items() if isinstance(node, dict) else enumerate(node))
        stack += [
            (f"{path}/{key}" if path else str(key), value, depth + 1)
            for key, value in reversed(items)
        ]


def _require_harmless(pickled: bytes) -> None:
    count = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled), 1):
        if opcode.name not in _OPCODES:
            raise CorruptCheckpointError(f"its pickle contains {opcode.name}")
        if opcode.name == "LONG_BINPUT" and int(str(argument)) > count:
            raise CorruptCheckpointError("its pickle asks for memory that it does not use")


class _Reader(pickle.Unpickler):
    """Knows only the names in `_KNOWN`; storages are their dtype and width."""

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module == "torch" and name in _WIDTHS:
            return _WIDTHS[name][0]
        if module == "torch" and name in _DTYPE_BYTES:
            return name
        raise pickle.UnpicklingError(f"the name {module}.{name[:100]}")

    def persistent_load(self, pid: Any, /) -> str:
        kind, dtype, _, _, _ = pid
        if kind != "storage" or not isinstance(dtype, str):
            raise pickle.UnpicklingError("a reference that is not a storage")
        return dtype


def _tensor(storage: str, _: object, size: tuple[int, ...], *rest: object) -> TensorInfo:
    dtype = rest[3] if storage == _UNTYPED else storage  # after strides, gradient and hooks
    shape = tuple(map(int, size))
    return TensorInfo(str(dtype), shape, prod(shape) * _DTYPE_BYTES[str(dtype)])


def _hooks() -> dict[str, Any]:
    return {}


_KNOWN: dict[tuple[str, str], Callable[..., Any] | str] = {
    ("collections", "OrderedDict"): _hooks,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor,
    ("torch.storage", "UntypedStorage"): _UNTYPED,
}
