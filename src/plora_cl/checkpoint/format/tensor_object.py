"""Groups of tensors as immutable bytes, in the safetensors format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from plora_cl.bounded_reading import MOST_JSON_MEMORY, json_memory
from plora_cl.checkpoint.disk.filesystem import ReadableBytes
from plora_cl.checkpoint.format.dtypes import SAFETENSORS
from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.errors import CorruptCheckpointError
from plora_cl.wording import kind_of

_ALIGNMENT = 8
_METADATA = "__metadata__"  # the format's own entry among the tensors
_TYPES = {getattr(torch, name): code for code, name in SAFETENSORS.items()}


def require_storable(tensors: Mapping[str, Tensor], group: str) -> None:
    """Refuse ``tensors`` that `encode_object` cannot store, before anything is computed with them.

    Raises:
        TypeError: One is no dense tensor with elements, of a type that the format has no name for,
            made in inference mode, or has itself a name that the format does not keep; the message
            names it as ``group``/name.
    """
    for name, tensor in tensors.items():
        if name == _METADATA or not isinstance(name, str):
            raise TypeError(
                f"{group}/{name}: the name is {name!r}; expected a str, not {_METADATA}"
            )
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{group}/{name} is {kind_of(tensor)}; expected a tensor")
        if tensor.dtype not in _TYPES or tensor.layout is not torch.strided:
            raise TypeError(
                f"{group}/{name} is a tensor of {tensor.dtype} ({tensor.layout}), which cannot be "
                "stored as a constant: convert it, or pass it in a component"
            )
        if tensor.is_meta:
            raise TypeError(f"{group}/{name} is a meta tensor, without elements: load it before")
        if tensor.is_inference():
            raise TypeError(
                f"{group}/{name} is an inference tensor, and PyTorch does not tell whether it is "
                "written to; clone() it outside torch.inference_mode()"
            )
        try:
            f"{group}/{name}".encode()
        except UnicodeEncodeError:
            raise TypeError(
                f"{f'{group}/{name}'!a}: the name has half a character, which UTF-8 cannot write"
            ) from None


def encode_object(tensors: Mapping[str, Tensor]) -> bytes:
    """Return ``tensors`` as the bytes of a safetensors file: equal tensors give equal bytes.

    Raises:
        TypeError: The format has no name for the type of a tensor.
    """
    return b"".join(_pieces(tensors))


def object_ref(tensors: Mapping[str, Tensor]) -> ObjectRef:
    """Return the reference to the object that `encode_object` makes, without making it.

    Raises:
        TypeError: The format has no name for the type of a tensor.
    """
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(tensors):
        digest.update(piece)
        size += memoryview(piece).nbytes
    return ObjectRef(digest.hexdigest(), size)


def _pieces(tensors: Mapping[str, Tensor]) -> Iterator[ReadableBytes]:
    # The layout is that of the safetensors library. The bytes, and with them the name of an object,
    # must not depend on its version.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {}
    end = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _TYPES:
            raise TypeError(f"{name} is a tensor of {tensor.dtype}, which safetensors cannot hold")
        begin, end = end, end + tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if json_memory(text) > MOST_JSON_MEMORY:
        raise ValueError(f"an object of {len(names)} tensors is more than a reader accepts")
    yield len(text).to_bytes(8, "little")
    yield text
    for name in names:
        plain = tensors[name].detach().to("cpu").resolve_conj().resolve_neg().contiguous()
        yield plain.reshape(-1).view(torch.uint8).numpy().data


@torch.inference_mode(False)  # else its tensors could not be trained
def decode_object(data: bytes) -> dict[str, Tensor]:
    """Return the tensors that `encode_object` was given, by name.

    Raises:
        CorruptCheckpointError: These are not the bytes of a safetensors file.
    """
    length = int.from_bytes(data[:8], "little")
    if length > len(data) or json_memory(data[8 : 8 + length]) > MOST_JSON_MEMORY:
        raise CorruptCheckpointError(f"not a safetensors file: a header of {length} bytes")
    try:
        return load(data)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CorruptCheckpointError(f"not a safetensors file: {error}") from error
