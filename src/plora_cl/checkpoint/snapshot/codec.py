"""Snapshots as the bytes of a checkpoint file, and back without executing anything."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor

from plora_cl.checkpoint.format import sealed_zip
from plora_cl.checkpoint.format.inspection import leaves
from plora_cl.checkpoint.format.manifest import (
    FORMAT_VERSION,
    Manifest,
    ObjectRef,
    require_known_version,
)
from plora_cl.checkpoint.format.pickle_gate import harmless_pickle
from plora_cl.checkpoint.format.torch_archive import records_of, require_readable
from plora_cl.checkpoint.format.trajectory import UNKNOWN, Trajectory
from plora_cl.checkpoint.snapshot.snapshot import RunFacts, Snapshot
from plora_cl.errors import CorruptCheckpointError
from plora_cl.state_digest import state_digest

FORMAT = "plora_cl.checkpoint"

_FACTS = ("seed", "settings", "identity", "environment")
_KINDS: dict[str, tuple[type, ...]] = {
    "cursor": (dict,),
    "trained_tasks": (list,),
    "seed": (int,),
    "loss": (float, int, type(None)),
    "settings": (dict,),
    "identity": (dict,),
    "environment": (dict,),
    "state": (dict,),
    "objects": (dict,),
    "state_digest": (str,),
}


def encode(snapshot: Snapshot) -> bytes:
    """Return the bytes of the checkpoint file: equal snapshots give equal bytes.

    Raises:
        TypeError: The state is not plain.
        CheckpointError: No reader would accept the state; the message names where.
        ValueError: The manifest would be longer than readers accept.
    """
    return encode_with_manifest(snapshot)[0]


def encode_with_manifest(snapshot: Snapshot) -> tuple[bytes, Manifest]:
    """Return what `encode` does, and the manifest in it as a reader gets it."""
    facts = snapshot.facts
    try:
        digest = state_digest(snapshot.state)
    except (RecursionError, ValueError):
        require_readable(snapshot.state)
        raise
    tree: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "cursor": snapshot.cursor,
        "trained_tasks": list(snapshot.trained_tasks),
        "seed": facts.seed,
        "loss": snapshot.loss,
        "settings": facts.settings,
        "identity": facts.identity,
        "environment": facts.environment,
        "objects": {name: ref.to_plain() for name, ref in snapshot.objects.items()},
        "state": snapshot.state,
        "state_digest": digest,
    }
    if snapshot.trajectory != UNKNOWN:
        tree["trajectory"] = snapshot.trajectory.to_plain()
    manifest = _manifest_json(snapshot, digest)
    described = Manifest.from_json(manifest)
    return sealed_zip.seal(b"", manifest, records_of(tree)), described


def decode(data: bytes) -> Snapshot:
    """Return the snapshot in a checkpoint file, see `decode_with_manifest`."""
    return decode_with_manifest(data)[0]


@torch.inference_mode(False)  # else its tensors could not be trained
def decode_with_manifest(data: bytes) -> tuple[Snapshot, Manifest]:
    """Return snapshot and manifest in a checkpoint file after verifying every byte of it.

    Nothing in the file is executed, and what it unpacks to is no larger than itself.

    Raises:
        CorruptCheckpointError: It is damaged, or was made to deceive.
        IncompatibleCheckpointError: It was written by a newer version of the format.
    """
    manifest = sealed_zip.open_sealed(data)
    harmless_pickle(io.BytesIO(data))
    try:
        tree = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        raise CorruptCheckpointError(f"PyTorch does not read it: {error}") from error
    _require_plain(tree)
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise CorruptCheckpointError(f"it is not a {FORMAT}")
    if type(tree.get("format_version")) is not int:
        raise CorruptCheckpointError("it has no format_version")
    require_known_version(tree["format_version"])
    wrong = [name for name, kinds in _KINDS.items() if type(tree.get(name, ...)) not in kinds]
    if wrong:
        raise CorruptCheckpointError(f"it has no valid {', '.join(wrong)}")
    objects = {name: ObjectRef.from_plain(ref) for name, ref in tree["objects"].items()}
    snapshot = Snapshot(
        state=tree["state"],
        objects=objects,
        cursor=tree["cursor"],
        trained_tasks=tree["trained_tasks"],
        loss=tree["loss"],
        facts=RunFacts(**{name: tree[name] for name in _FACTS}),
        trajectory=Trajectory.from_plain(tree.get("trajectory")),
    )
    try:
        digest = state_digest(snapshot.state)
        described = Manifest.from_json(_manifest_json(snapshot, digest))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CorruptCheckpointError(f"its content is not plain: {error}") from error
    if digest != tree["state_digest"]:
        raise CorruptCheckpointError("its state does not match its state_digest")
    if described != manifest:
        raise CorruptCheckpointError("its manifest contradicts its content")
    return snapshot, manifest


def _manifest_json(snapshot: Snapshot, digest: str) -> bytes:
    return Manifest(
        cursor=snapshot.cursor,
        trained_tasks=snapshot.trained_tasks,
        seed=snapshot.facts.seed,
        loss=snapshot.loss,
        objects=snapshot.objects,
        settings=snapshot.facts.settings,
        state_digest=digest,
        trajectory=snapshot.trajectory,
    ).to_json()


def _require_plain(tree: object) -> None:
    """Refuse what `encode` never writes: other types, shared or endless nesting, odd tensors."""
    for _, leaf in leaves(tree):
        kind = type(leaf)
        if kind is Tensor:
            _require_dense(leaf)
        elif kind not in (str, int, float, bool, type(None)):
            raise CorruptCheckpointError(f"it holds a {kind.__module__}.{kind.__qualname__}")


def _require_dense(tensor: Tensor) -> None:
    is_dense = (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor.requires_grad
        and _fills_its_memory(tensor)  # others may repeat a few bytes into any size
    )
    if not is_dense:
        raise CorruptCheckpointError("it holds a tensor that is not dense")


def _fills_its_memory(tensor: Tensor) -> bool:
    """Return whether the elements lie side by side, in the order of some of the dimensions."""
    outermost_first = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.is_contiguous() or tensor.permute(outermost_first).is_contiguous()
