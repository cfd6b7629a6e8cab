"""The types of tensors that checkpoints hold, and their names in each format; free of PyTorch."""

from __future__ import annotations

from typing import NamedTuple


class Dtype(NamedTuple):
    """A type of tensors.

    Attributes:
        bytes: Size of an element.
        storage: Class that stands for it in a pickle; None where that is an untyped storage.
        safetensors: Its name in safetensors files; None where that format has none.
    """

    bytes: int
    storage: str | None
    safetensors: str | None


DTYPES = {
    "float64": Dtype(8, "DoubleStorage", "F64"),
    "float32": Dtype(4, "FloatStorage", "F32"),
    "float16": Dtype(2, "HalfStorage", "F16"),
    "bfloat16": Dtype(2, "BFloat16Storage", "BF16"),
    "int64": Dtype(8, "LongStorage", "I64"),
    "int32": Dtype(4, "IntStorage", "I32"),
    "int16": Dtype(2, "ShortStorage", "I16"),
    "int8": Dtype(1, "CharStorage", "I8"),
    "uint8": Dtype(1, "ByteStorage", "U8"),
    "bool": Dtype(1, "BoolStorage", "BOOL"),
    "complex128": Dtype(16, "ComplexDoubleStorage", None),
    "complex64": Dtype(8, "ComplexFloatStorage", "C64"),
    "uint64": Dtype(8, None, "U64"),
    "uint32": Dtype(4, None, "U32"),
    "uint16": Dtype(2, None, "U16"),
    "float8_e4m3fn": Dtype(1, None, "F8_E4M3"),
    "float8_e5m2": Dtype(1, None, "F8_E5M2"),
    "float8_e4m3fnuz": Dtype(1, None, None),
    "float8_e5m2fnuz": Dtype(1, None, None),
    "float8_e8m0fnu": Dtype(1, None, None),
}
"""Every type whose size is known, by PyTorch's name without ``torch.``."""

STORAGES = {dtype.storage: name for name, dtype in DTYPES.items() if dtype.storage}
"""Names of types by storage class."""

SAFETENSORS = {dtype.safetensors: name for name, dtype in DTYPES.items() if dtype.safetensors}
"""Names of types by their name in safetensors files."""
