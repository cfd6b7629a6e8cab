"""The manifest of a checkpoint, readable without a tensor library."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plora_cl.bounded_reading import MOST_JSON_MEMORY, json_memory, parse_json
from plora_cl.checkpoint.disk.filesystem import ReadableBytes
from plora_cl.checkpoint.format.naming import is_sha256
from plora_cl.checkpoint.format.trajectory import UNKNOWN, Trajectory
from plora_cl.errors import CorruptCheckpointError, IncompatibleCheckpointError

FORMAT_VERSION = 1
MAX_MANIFEST_BYTES = 16 << 20
BASE_WEIGHTS = "model/base"
"""Name of the object with the base weights. A run has them from its model, so that a damaged file
stops no run."""
MODEL_FILES = "encoder/files"
"""Name of the object with the encoder's configuration and tokenizer, for use without its folder.
Resuming takes both from the model, so that older checkpoints do without."""

_TOO_LARGE = 1 << 63
_CURSOR_NUMBERS = ("task", "epoch", "batch", "step")


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An immutable file that checkpoints share, named by its content.

    Attributes:
        sha256: Of the bytes of the file, 64 lower-case hexadecimal digits.
        bytes: Its length.

    Raises:
        CorruptCheckpointError: A field is malformed: only a digest may name a file.
    """

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        if not is_sha256(self.sha256):
            raise CorruptCheckpointError(f"{self.sha256!r} is not a SHA-256 digest")
        if type(self.bytes) is not int or not 0 <= self.bytes < _TOO_LARGE:
            raise CorruptCheckpointError(f"{self.bytes!r} is not a number of bytes")

    @classmethod
    def of(cls, data: ReadableBytes) -> ObjectRef:
        """Return the reference to an object with the bytes ``data``."""
        return cls(hashlib.sha256(data).hexdigest(), memoryview(data).nbytes)

    @property
    def file_name(self) -> str:
        """The name of the file in ``objects/``."""
        return f"{self.sha256}.safetensors"

    def to_plain(self) -> dict[str, str | int]:
        """Return the reference as it is stored."""
        return {"sha256": self.sha256, "bytes": self.bytes}

    @classmethod
    def from_plain(cls, plain: object) -> ObjectRef:
        """Read `to_plain` back.

        Raises:
            CorruptCheckpointError: It is not a reference.
        """
        if not isinstance(plain, Mapping) or plain.keys() != {"sha256", "bytes"}:
            raise CorruptCheckpointError(f"{plain!r} is not a reference to an object")
        return cls(plain["sha256"], plain["bytes"])


def verified(chunks: Iterable[bytes], ref: ObjectRef, what: str) -> Iterator[bytes]:
    """Yield ``chunks`` and make sure at the end that they are the object ``ref``.

    Raises:
        CorruptCheckpointError: They are not; the message names ``what``.
    """
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != ref.sha256:
        raise CorruptCheckpointError(f"{what} is damaged: it does not match its digest")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The table of contents of one checkpoint.

    Attributes:
        cursor: The next position: ``task``, ``phase``, ``epoch``, ``batch``, ``step``.
        trained_tasks: Names of the tasks that are complete, in order.
        seed: Of the run.
        loss: Of the last optimizer step; None where there was none or it is not finite.
        objects: The objects the checkpoint refers to, by name.
        settings: The resolved settings of the run.
        state_digest: Of the ``state`` of the checkpoint; see `plora_cl.state_digest`.
        trajectory: The computation it belongs to.
        format_version: Of the layout.
    """

    cursor: Mapping[str, Any]
    trained_tasks: Sequence[str]
    seed: int
    loss: float | None
    objects: Mapping[str, ObjectRef]
    settings: Mapping[str, Any]
    state_digest: str
    trajectory: Trajectory = UNKNOWN
    format_version: int = FORMAT_VERSION

    @property
    def refs(self) -> list[ObjectRef]:
        """The objects it refers to, without repetitions, in the order of their digests."""
        return sorted(set(self.objects.values()), key=lambda ref: ref.sha256)

    def to_json(self) -> bytes:
        """Return the manifest as JSON with sorted keys: equal manifests give equal bytes.

        Raises:
            ValueError: A setting is not finite, or the text is longer, or holds more values, than
                a reader accepts.
        """
        plain: dict[str, Any] = {
            "format_version": self.format_version,
            "cursor": dict(self.cursor),
            "trained_tasks": list(self.trained_tasks),
            "seed": self.seed,
            "loss": self.loss if self.loss is not None and math.isfinite(self.loss) else None,
            "objects": {name: ref.to_plain() for name, ref in self.objects.items()},
            "settings": dict(self.settings),
            "state_digest": self.state_digest,
        }
        if self.trajectory != UNKNOWN:
            plain["trajectory"] = self.trajectory.to_plain()
        data = json.dumps(plain, sort_keys=True, allow_nan=False).encode()
        if len(data) > MAX_MANIFEST_BYTES:
            raise ValueError(
                f"the manifest has {len(data)} bytes, at most {MAX_MANIFEST_BYTES} are allowed"
            )
        if json_memory(data) > MOST_JSON_MEMORY:
            raise ValueError("the manifest holds more values than a reader accepts")
        return data

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read `to_json` back; keys that this version does not know are ignored.

        Raises:
            CorruptCheckpointError: It is not a manifest.
            IncompatibleCheckpointError: A newer version of the format.
        """
        try:
            plain = parse_json(data)
        except ValueError as error:
            raise CorruptCheckpointError(f"the manifest is not JSON: {error}") from error
        if not isinstance(plain, dict) or type(plain.get("format_version")) is not int:
            raise CorruptCheckpointError("the manifest has no format_version")
        require_known_version(plain["format_version"])
        wrong = [name for name, is_right in _FIELDS.items() if not is_right(plain.get(name))]
        if wrong:
            raise CorruptCheckpointError(f"the manifest has no valid {', '.join(wrong)}")
        objects = {name: ObjectRef.from_plain(ref) for name, ref in plain["objects"].items()}
        fields = {name: plain[name] for name in _FIELDS}
        trajectory = Trajectory.from_plain(plain.get("trajectory"))
        version = plain["format_version"]
        return cls(
            **{**fields, "objects": objects, "trajectory": trajectory, "format_version": version}
        )


def require_known_version(version: int) -> None:
    """Make sure that this library knows ``version`` of the format.

    Raises:
        IncompatibleCheckpointError: The version is unknown.
    """
    if version != FORMAT_VERSION:
        raise IncompatibleCheckpointError(
            f"format version {version}: this library reads version {FORMAT_VERSION}; install the "
            "version of plora-cl that wrote it, or a later one"
        )


def _is_cursor(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("phase"), str)
        and all(_is_number(value.get(name)) and value[name] >= 0 for name in _CURSOR_NUMBERS)
    )


def _is_number(value: Any) -> bool:
    return type(value) is int and -_TOO_LARGE <= value < _TOO_LARGE


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "cursor": _is_cursor,
    "trained_tasks": lambda v: isinstance(v, list) and all(isinstance(name, str) for name in v),
    "seed": _is_number,
    "loss": lambda v: v is None or type(v) is float or _is_number(v),
    "objects": lambda v: isinstance(v, dict),
    "settings": lambda v: isinstance(v, dict),
    "state_digest": is_sha256,
}
