"""F: every bit flipped, every length cut, blocks zeroed, bytes added, and random files."""

from __future__ import annotations

import io
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from checkpoint.components import Holder, capture
from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.format.naming import checkpoint_name
from plora_cl.checkpoint.format.sealed_zip import manifest_of, open_sealed
from plora_cl.checkpoint.format.tensor_object import encode_object
from plora_cl.checkpoint.snapshot.codec import decode, encode
from plora_cl.checkpoint.snapshot.loading import newest_usable
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.errors import CheckpointError, CorruptCheckpointError

GOLDEN = Path(__file__).parents[1] / "golden" / "format1"


def flips(data: bytes) -> Iterator[bytes]:
    damaged = bytearray(data)
    for place in range(len(data)):
        for bit in range(8):
            damaged[place] ^= 1 << bit
            yield bytes(damaged)
            damaged[place] ^= 1 << bit


def other_damage(data: bytes) -> Iterator[bytes]:
    """Yield every truncation, every block of 512 bytes zeroed, and extensions."""
    for length in range(len(data)):
        yield data[:length]
    for start in range(0, len(data), 512):
        zeroed = data[:start] + bytes(len(data[start : start + 512])) + data[start + 512 :]
        if zeroed != data:
            yield zeroed
    yield from (data + extra for extra in (b"\0", b"x", bytes(512), data))
    yield bytes(len(data))


def small_checkpoint() -> bytes:
    return encode(capture({"model": Holder(torch.arange(4.0))}))


def small_object() -> bytes:
    return encode_object({"weight": torch.arange(4.0)})


def count_refused(variants: Iterator[bytes]) -> int:
    count = 0
    for damaged in variants:
        with pytest.raises(CorruptCheckpointError):
            decode(damaged)
        count += 1
    return count


def test_a_checkpoint_with_any_bit_flipped_is_refused() -> None:
    data = small_checkpoint()
    count = count_refused(flips(data))
    assert count == 8 * len(data)
    print(f"{count} flips of a checkpoint refused")


def test_a_checkpoint_cut_zeroed_or_extended_anywhere_is_refused() -> None:
    data = small_checkpoint()
    count = count_refused(other_damage(data))
    assert count > len(data)
    print(f"{count} truncations, zeroed blocks and extensions of a checkpoint refused")


def test_a_manifest_read_alone_is_right_or_refused_whatever_bit_is_flipped() -> None:
    data = small_checkpoint()
    original = open_sealed(data)
    refused = identical = 0
    for damaged in flips(data):
        try:
            assert manifest_of(io.BytesIO(damaged)) == original
            identical += 1
        except CorruptCheckpointError:
            refused += 1
    assert refused > 8 * len(original.to_json())
    print(f"{refused} flips refused, {identical} provably identical by the manifest alone")


def test_an_object_with_any_damage_is_refused(tmp_path: Path) -> None:
    data = small_object()
    store = CheckpointStore(tmp_path)
    ref = store.objects.put(data)
    path = store.objects.path(ref)
    count = 0
    for damaged in (*flips(data), *other_damage(data)):
        path.write_bytes(damaged)
        with pytest.raises(CorruptCheckpointError):
            store.objects.get(ref)
        count += 1
    assert count > 9 * len(data)
    print(f"{count} flips, truncations, zeroed blocks and extensions of an object refused")


def test_after_any_kind_of_damage_the_next_older_checkpoint_is_taken(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    shared = store.objects.put(small_object())
    refs = [
        store.objects.put(encode_object({"weight": torch.full((4,), float(batch))}))
        for batch in range(3)
    ]
    for batch in (1, 2):
        snapshot = capture({"m": Holder(batch)}, objects={"base": shared, "adapter": refs[batch]})
        store.commit(checkpoint_name(0, 0, batch), encode(snapshot))
    generator = random.Random(3)
    for path in (store.entries()[-1].path, store.objects.path(refs[2])):
        data = path.read_bytes()
        kinds = [*flips(data[:40]), *other_damage(data[:40])]
        heads = [kind + data[40:] for kind in kinds if len(kind) == 40]
        cuts = [data[: generator.randrange(len(data))] for _ in range(30)]
        for damaged in (*heads, *cuts, b"", bytes(len(data)), data + b"\0"):
            path.write_bytes(damaged)
            found = newest_usable(CheckpointStore(tmp_path))
            assert found is not None
            assert found.snapshot.state == {"m": {"value": 1}}
        path.write_bytes(data)
        newest = newest_usable(CheckpointStore(tmp_path))
        assert newest is not None
        assert newest.snapshot.state == {"m": {"value": 2}}


def test_random_bytes_are_refused_in_bounded_memory(tmp_path: Path) -> None:
    generator = random.Random(7)
    sample, content = small_checkpoint(), small_object()
    store = CheckpointStore(tmp_path)
    path = tmp_path / checkpoint_name(0, 0, 0)
    count = 0
    with pytest.raises(CorruptCheckpointError):
        decode(b"whatever is imported to read one is there")
    tracemalloc.start()
    try:
        for _ in range(500):
            noise = generator.randbytes(generator.randrange(1 << 13))
            for data in (noise, sample[:700] + noise, noise + sample[-300:]):
                path.write_bytes(data)
                with pytest.raises(CheckpointError):
                    store.read(store.entries()[0])
                with pytest.raises(CorruptCheckpointError):
                    decode(data)
                count += 1
            ref = ObjectRef.of(content)
            store.objects.make_directories()
            store.objects.path(ref).write_bytes(noise[: len(content)].ljust(len(content), b"x"))
            with pytest.raises(CorruptCheckpointError):
                store.objects.get(ref)
            count += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    print(f"{count} random files refused")


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(1800)
def test_a_real_checkpoint_with_any_bit_flipped_or_cut_anywhere_is_refused() -> None:
    data = next(GOLDEN.glob("*.pt")).read_bytes()
    count = count_refused(flips(data)) + count_refused(other_damage(data))
    print(f"{count} damaged variants of the golden checkpoint refused")
