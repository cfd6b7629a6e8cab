"""Refuses a pickle in a checkpoint before anything is built from it.

``weights_only=True`` keeps code from running, but lets a few bytes allocate gigabytes: it calls
``bytearray`` with any number, and a dict takes one byte of pickle and two hundred of memory. Only
the instructions and names that `torch.save` writes for plain containers and dense tensors pass, and
the memory for what they build is bounded by the size of the pickle.
"""

from __future__ import annotations

import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO

from plora_cl.checkpoint.format.dtypes import STORAGES
from plora_cl.errors import CorruptCheckpointError

PICKLE_RECORD = "archive/data.pkl"
MAX_PICKLE_BYTES = 1 << 28
MAX_DEPTH = 64
MAX_INT_BITS = 8 * 255 - 1
"""Pickle writes longer integers by an instruction that is not allowed."""

_NAMES = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor_v3",
        "torch.storage UntypedStorage",
        *(f"torch {name}" for name in STORAGES),
    }
)
_DTYPE = re.compile(r"torch (b?complex|b?float|q?u?int|bits|bool)[0-9a-z_]*")

# Bytes of memory that each instruction takes at most, in CPython on 64 bits: for the object, its
# places on the stack and in its container, and for checking it.
_PLACE = 24
_OPCODES = {
    **dict.fromkeys(("PROTO", "STOP", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "BINPERSID"), 0),
    **dict.fromkeys(("NONE", "NEWTRUE", "NEWFALSE", "BININT1", "BINGET", "LONG_BINGET"), _PLACE),
    **dict.fromkeys(("BININT", "BININT2", "BINFLOAT", "GLOBAL"), _PLACE + 32),
    **dict.fromkeys(("LONG1", "BINUNICODE"), _PLACE + 56),  # and 4 for each byte
    **dict.fromkeys(("MARK", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"), _PLACE + 56),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), 120),
    "EMPTY_LIST": _PLACE + 192,
    "EMPTY_DICT": _PLACE + 352,
    "REDUCE": 640,
}
_OF_VARIABLE_LENGTH = frozenset({"LONG1", "BINUNICODE"})
_MEMOS = frozenset({"BINPUT", "LONG_BINPUT"})
_REMEMBERED = frozenset({"EMPTY_LIST", "EMPTY_DICT", "REDUCE"})

# A pickler remembers each container and tensor under the next number, which takes six bytes: those
# are not counted, and the rest of what a save writes takes less than this. All in all, a pickle
# that passes takes at most a hundred times its bytes, and what was saved passes.
_MOST_PER_BYTE = 32
_ALWAYS_ALLOWED = 32 << 20


def harmless_pickle(file: BinaryIO) -> bytes:
    """Return the pickle in an open archive if it may be loaded.

    Raises:
        CorruptCheckpointError: It names or does what `torch.save` does not, describes far more than
            its size, or is no pickle.
    """
    with _pickle_in(file) as (record, size):
        pickled = record.read()
        _require_harmless(pickled, size)
    return pickled


def require_harmless_pickle(file: BinaryIO) -> None:
    """Check what `harmless_pickle` does, in constant memory and twice the time.

    Raises:
        CorruptCheckpointError: As `harmless_pickle` says.
    """
    with _pickle_in(file) as (record, size):
        _require_harmless(record, size)


@contextmanager
def _pickle_in(file: BinaryIO) -> Iterator[tuple[IO[bytes], int]]:
    try:
        with zipfile.ZipFile(file) as archive:
            size = archive.getinfo(PICKLE_RECORD).file_size
            if size > MAX_PICKLE_BYTES:
                raise CorruptCheckpointError(f"{PICKLE_RECORD} has {size} bytes")
            with archive.open(PICKLE_RECORD) as record:
                yield record, size
    except (
        zipfile.BadZipFile, struct.error, KeyError, IndexError, ValueError, RuntimeError, EOFError,
    ) as error:  # fmt: skip
        raise CorruptCheckpointError(f"{PICKLE_RECORD} is not a pickle: {error}") from error


def _require_harmless(pickled: bytes | IO[bytes], size: int) -> None:
    left = _ALWAYS_ALLOWED + _MOST_PER_BYTE * size
    last, memos = "", 0
    for count, instruction in enumerate(pickletools.genops(pickled), 1):
        opcode, argument, _ = instruction
        if opcode.name not in _OPCODES:
            raise CorruptCheckpointError(f"its pickle contains {opcode.name}")
        if opcode.name == "GLOBAL" and not _is_known(str(argument)):
            raise CorruptCheckpointError(f"its pickle names {str(argument)[:100]!r}")
        if opcode.name in _MEMOS:
            if last in _MEMOS or int(str(argument)) > count:
                raise CorruptCheckpointError("its pickle allocates memory that it does not use")
            if argument == memos and last in _REMEMBERED:
                left += _OPCODES[last]
            memos += 1
        last = opcode.name
        left -= memory_of(instruction)
        if left < 0:
            raise CorruptCheckpointError(
                f"its pickle has {size} bytes and describes far more than the state of a "
                "run of that size"
            )


def memory_of(instruction: tuple[pickletools.OpcodeInfo, object, object]) -> int:
    """Return the bytes of memory that one allowed instruction takes at most."""
    opcode, argument, _ = instruction
    cost = _OPCODES[opcode.name]
    return cost + 4 * _length(argument) if opcode.name in _OF_VARIABLE_LENGTH else cost


def _is_known(argument: str) -> bool:
    return argument in _NAMES or _DTYPE.fullmatch(argument) is not None


def _length(argument: object) -> int:
    if isinstance(argument, str):
        return len(argument.encode())  # UnicodeEncodeError, a ValueError, for half a character
    return int(str(argument)).bit_length() // 8 if isinstance(argument, int) else 0
