"""Which names a pickle inside a checkpoint may use, decided before it is unpickled.

``weights_only=True`` keeps code from running, but lets a few bytes ask for gigabytes: a call of
``bytearray`` with a number is on its list. Here only what `torch.save` writes for plain containers
and dense tensors is.
"""

from __future__ import annotations

import io
import pickletools
import zipfile

import torch

from plora_cl.errors import CorruptCheckpointError

PICKLE_RECORD = "archive/data.pkl"

_NAMES = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor_v3",
        "torch.storage UntypedStorage",
    }
)
_BY_OTHER_MEANS = frozenset({"STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"})


def require_known_names(data: bytes) -> None:
    """Make sure that the pickle in the archive ``data`` names nothing that `torch.save` does not.

    Raises:
        CorruptCheckpointError: It does, or it is no pickle.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            pickled = archive.read(PICKLE_RECORD)
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in _BY_OTHER_MEANS:
                raise CorruptCheckpointError(f"its pickle contains {opcode.name}")
            if opcode.name == "GLOBAL" and not _is_known(str(argument)):
                raise CorruptCheckpointError(f"its pickle names {str(argument)[:100]!r}")
    except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError) as error:
        raise CorruptCheckpointError(f"{PICKLE_RECORD} is not a pickle: {error}") from error


def _is_known(argument: str) -> bool:
    module, _, name = argument.partition(" ")
    if argument in _NAMES:
        return True
    return module == "torch" and (
        name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype)
    )
