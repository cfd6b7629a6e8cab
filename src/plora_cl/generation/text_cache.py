"""A cache of generated texts on disk, shared by runs."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plora_cl.bounded_reading import parse_json, read_small
from plora_cl.cache_folder import use
from plora_cl.generation.generator import Generated, TextGenerator
from plora_cl.generation.lora import Lora
from plora_cl.generation.lora_tuning import Tuned, TuningExample, TuningPlan, TuningState
from plora_cl.units import Units

FORMAT_VERSION = 1

_MOST_BYTES = 16 << 20  # a chunk is at most a few hundred texts of a few hundred tokens

log = logging.getLogger(__name__)


class CachedGenerator:
    """A `TextGenerator` that caches the texts of another one.

    Results are the same with and without the cache: the key of an entry covers everything that
    decides the texts. A damaged entry counts as absent. If the folder cannot be written, one
    warning says so, and nothing more is cached.

    Args:
        generator: Generates the texts that are not cached.
        folder: Folder of the entries; created with the first one.
        environment: Versions, device and threads, which also decide the bits of a result.
    """

    def __init__(
        self, generator: TextGenerator, folder: Path, environment: Mapping[str, Any]
    ) -> None:
        self._generator, self._folder = generator, folder
        self._environment = dict(environment)
        self._can_write = True
        self._use: object = None

    @property
    def name(self) -> str:
        """Name of the model in the settings."""
        return self._generator.name

    @property
    def digest(self) -> str:
        """Digest of the generator."""
        return self._generator.digest

    @property
    def weights_digest(self) -> str:
        """Digest of the generator."""
        return self._generator.weights_digest

    @property
    def instruction_tuned(self) -> bool:
        """Whether the model follows requests."""
        return self._generator.instruction_tuned

    def generate(
        self, prompt: str, *, count: int, seed: int, lora: Lora | None = None
    ) -> Sequence[Generated]:
        """Return ``count`` texts, from the cache if it has them."""
        asked = [FORMAT_VERSION, self.digest, prompt, count, seed, self._environment]
        if lora is not None:
            asked.append(lora.digest)
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        self._use = self._use or use(self._folder)
        path = self._folder / key[:2] / f"{key}.json"
        found = _read(path, key, count)
        if found is None:
            found = list(self._generator.generate(prompt, count=count, seed=seed, lora=lora))
            self._write(path, key, found)
        return found

    def tune(
        self,
        examples: Sequence[TuningExample],
        plan: TuningPlan,
        state: TuningState,
        *,
        seed: int,
        what: str,
    ) -> Units[Tuned]:
        """Tune with the generator; nothing is cached."""
        return self._generator.tune(examples, plan, state, seed=seed, what=what)

    def release(self) -> None:
        """Release the generator."""
        self._generator.release()

    def _write(self, path: Path, key: str, texts: Sequence[Generated]) -> None:
        if not self._can_write:
            return
        content = json.dumps(texts)
        entry = {"key": key, "sha256": _sha256(content), "texts": content}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
            try:
                temporary.write_text(json.dumps(entry), encoding="utf-8")
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            self._can_write = False
            log.warning("generated texts are not cached: %s; generation continues", error)


def _read(path: Path, key: str, count: int) -> list[Generated] | None:
    """Return the ``count`` texts of the entry at ``path``; None if it is absent or damaged."""
    try:
        entry = parse_json(read_small(path, _MOST_BYTES))
        if entry["key"] != key or entry["sha256"] != _sha256(entry["texts"]):
            return None
        found = [Generated(text, tokens) for text, tokens in parse_json(entry["texts"].encode())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    is_right = all(type(text) is str and type(tokens) is int for text, tokens in found)
    return found if is_right and len(found) == count else None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
