"""Groups of tensors as immutable bytes, in the safetensors format."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from plora_cl.errors import CorruptCheckpointError


def encode_object(tensors: Mapping[str, Tensor]) -> bytes:
    """Return ``tensors`` as the bytes of a safetensors file: equal tensors give equal bytes."""
    separate: dict[str, Tensor] = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        whole = tensor.untyped_storage().nbytes() == tensor.nbytes
        seen = any(tensor.data_ptr() == other.data_ptr() for other in separate.values())
        separate[name] = tensor if whole and not seen else tensor.clone()
    return save(separate)


def decode_object(data: bytes) -> dict[str, Tensor]:
    """Return the tensors that `encode_object` was given, by name.

    Raises:
        CorruptCheckpointError: These are not the bytes of a safetensors file.
    """
    try:
        return load(data)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CorruptCheckpointError(f"not a safetensors file: {error}") from error
