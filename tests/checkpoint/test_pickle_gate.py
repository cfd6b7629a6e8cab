"""What a pickle may describe is bounded, far above what runs write."""

from __future__ import annotations

import io
import pickletools
import struct
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from attacks.trial import archive
from checkpoint.components import Holder, capture
from plora_cl.bounded_reading import MOST_JSON_MEMORY, json_memory, parse_json
from plora_cl.checkpoint import CheckpointError, CheckpointManager, load_checkpoint, verify
from plora_cl.checkpoint.format import pickle_gate, torch_archive
from plora_cl.checkpoint.format.inspection import read_content
from plora_cl.checkpoint.format.manifest import Manifest, ObjectRef
from plora_cl.checkpoint.format.pickle_gate import PICKLE_RECORD, harmless_pickle
from plora_cl.checkpoint.snapshot.codec import _require_plain, decode, encode
from plora_cl.errors import CorruptCheckpointError
from plora_cl.state_digest import state_digest

TASKS = 1000


def scores(tasks: int) -> list[list[object]]:
    """Return the score matrix of a run in which no early prediction ever changes."""
    digests = [f"{task:064x}" for task in range(tasks + 1)]
    return [[i, j, 0.1 + i / 1e3, 0.2 + j / 1e3, digests[j]]
            for i in range(tasks) for j in range(i + 2)]  # fmt: skip


def test_scores_pass_however_many_tasks_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_gate, "_ALWAYS_ALLOWED", 0)  # so that size does not matter
    data = encode(capture({"scores": Holder(scores(TASKS // 10))}))
    assert decode(data).state["scores"]["value"][-1][:2] == [TASKS // 10 - 1, TASKS // 10]


def test_heads_of_a_thousand_tasks_and_their_moments_pass() -> None:
    heads = {f"heads.{n}": torch.full((2,), float(n)) for n in range(2 * TASKS)}
    moments = {
        n: {"step": torch.ones(()), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}
        for n in range(2 * TASKS)
    }
    data = encode(capture({"heads": Holder(heads), "optimizer": Holder(moments)}))
    assert len(decode(data).state["heads"]["value"]) == 2 * TASKS
    assert "optimizer" in read_content(io.BytesIO(data))["state"]


def test_a_manifest_of_a_thousand_tasks_takes_a_quarter_of_what_is_allowed() -> None:
    names = [f"part-{part}-{task}" for task in range(TASKS) for part in range(10)]
    tasks = [{"name": f"t{n}", "path": f"data/t{n}", "classes": ["a", "b"]} for n in range(TASKS)]
    manifest = Manifest(
        cursor={"task": 1, "epoch": 0, "batch": 0, "step": 0, "phase": "train"},
        trained_tasks=[f"t{n}" for n in range(TASKS)],
        seed=1,
        loss=None,
        objects={name: ObjectRef("ab" * 32, 12345) for name in names},
        settings={"tasks": tasks},
        state_digest="ab" * 32,
    )
    text = manifest.to_json()
    assert json_memory(text) < MOST_JSON_MEMORY / 4
    assert Manifest.from_json(text) == manifest


MANY = 3_000
STATES: dict[str, list[Any]] = {
    "pairs": [[1000 + n, n % 7] for n in range(MANY)],
    "empty dicts": [{} for _ in range(MANY)],
    "empty lists": [[] for _ in range(MANY)],
    "dicts of one": [{0: {}} for _ in range(MANY)],
    "dicts of two": [{"a": n, "b": None} for n in range(MANY)],
    "lists of one": [[None] for _ in range(MANY)],
    "nothing": [None] * MANY,
    "texts": [str(n) for n in range(MANY)],
    "long integers": [2**1000 + n for n in range(MANY)],
    "numbers": [torch.tensor(float(n)) for n in range(MANY)],
    "numbers of another type": [torch.tensor(n).to(torch.uint16) for n in range(MANY)],
    "lists of a tensor": [[torch.ones(1, 1, 1)] for _ in range(MANY)],
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_what_is_saved_passes_however_much_of_it_there_is(
    state: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    slack = 256 * 3 * pickle_gate._MOST_PER_BYTE  # the first memos take three bytes less
    monkeypatch.setattr(pickle_gate, "_ALWAYS_ALLOWED", slack)
    data = encode(capture({"buffer": Holder(state)}))
    assert state_digest(decode(data).state["buffer"]["value"]) == state_digest(state)


def test_150_000_pairs_and_200_000_dicts_come_back() -> None:
    state = {
        "pairs": [[n, n % 7] for n in range(150_000)],
        "dicts": [{"n": n} for n in range(200_000)],
    }
    assert decode(encode(capture({"buffer": Holder(state)}))).state["buffer"]["value"] == state


def nested(levels: int) -> list[Any]:
    return [nested(levels - 1)] if levels else []


REFUSED = {
    "nested": (nested(80), r"'/part/value/1(/0)+' is nested more than 64 levels deep"),
    "nested deeper": (nested(300), r"'/part/value/1(/0)+' is nested more than 64 levels deep"),
    "half a character": ("caf\udce9", r"'/part/value/1' is a text with half a character.*udce9"),
    "half a key": ({"\ud800": 1}, r"'/part/value/1/.*\(a key\)' is a text with half a char"),
    "long integer": (1 << 5000, r"'/part/value/1' is an integer of 5001 bits"),
    "longer integer": (1 << 50_000, r"'/part/value/1' is an integer of 50001 bits"),
    "long key": ({1 << 5000: 1}, r"\(a key\)' is an integer of 5001 bits"),
}


@pytest.mark.parametrize(("state", "message"), REFUSED.values(), ids=REFUSED)
def test_what_could_not_be_read_is_not_saved_and_earlier_checkpoints_stay(
    tmp_path: Path, state: Any, message: str
) -> None:
    part = Holder([0, 1])
    with CheckpointManager(tmp_path, {"part": part}) as checkpoints:
        checkpoints.save(1)
        checkpoints.flush()
        part.state = [0, state]
        checkpoints.save(2)
        with pytest.raises(CheckpointError, match=message):
            checkpoints.flush()
        part.state = [0, 2]
        checkpoints.save(3)
    assert verify(tmp_path).is_intact
    assert load_checkpoint(tmp_path).snapshot.state["part"]["value"] == [0, 2]


def test_a_state_that_holds_itself_is_refused_by_name(tmp_path: Path) -> None:
    part = Holder([])
    with CheckpointManager(tmp_path, {"part": part}) as checkpoints:
        part.state.append(part.state)
        with pytest.raises(CheckpointError, match=r"'/part/value/0.* is nested more than 64"):
            checkpoints.save(1)
        part.state.clear()


def test_a_pickle_too_long_for_readers_is_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_archive, "MAX_PICKLE_BYTES", 5000)
    encode(capture({"part": Holder(list(range(1000)))}))
    with pytest.raises(CheckpointError, match="at most 5000 are allowed"):
        encode(capture({"part": Holder(list(range(3000)))}))


COUNT = 20_000
PATTERNS = {
    "dicts": b"}",
    "lists": b"]",
    "lists of one": b"]Na",
    "dicts of one": b"}K\0Ns",
    "dicts of six": b"}(K\0NK\1NK\2NK\3NK\4NK\5Nu",
    "nothing": b"N",
    "small integers": b"M\xff\x7f",
    "integers": b"J\xff\xff\xff\x7f",
    "long integers": b"\x8a\x09" + b"\xff" * 8 + b"\x01",
    "floats": b"G" + struct.pack(">d", 1.5),
    "short texts": b"X\2\0\0\0ab",
    "wide texts": b"X\x08\0\0\0abcd\xf0\x9f\x98\x80",
    "tuples": b"N\x85\x85\x85",
}


def peak_of(pickled: bytes) -> int:
    """Return the most memory that either reader takes while it reads, or refuses, ``pickled``."""
    data = archive(pickled)

    def tool() -> None:
        with suppress(CorruptCheckpointError):
            read_content(io.BytesIO(data))

    def library() -> None:
        with suppress(CorruptCheckpointError):
            _require_plain(torch.load(io.BytesIO(data), weights_only=True))

    peaks = []
    for read in (tool, library):
        tracemalloc.start()
        read()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return max(peaks)


@pytest.mark.parametrize("item", PATTERNS.values(), ids=PATTERNS)
def test_the_account_is_not_below_what_is_taken(item: bytes) -> None:
    pickled = b"\x80\x02](" + item * COUNT + b"e."
    account = sum(map(pickle_gate.memory_of, pickletools.genops(pickled)))
    assert peak_of(pickled) < account + 3 * len(pickled) + (1 << 19)


@pytest.mark.parametrize("item", [b"}", b"]", b"N\x85", b"(", b"]q\0"])
def test_a_pickle_that_describes_far_more_than_its_size_is_refused(item: bytes) -> None:
    size = 4 * pickle_gate._ALWAYS_ALLOWED // pickle_gate._OPCODES["MARK"]
    pickled = b"\x80\x02](" + item * (size // len(item)) + b"e."
    with pytest.raises(CorruptCheckpointError, match="describes far more"):
        harmless_pickle(io.BytesIO(archive(pickled)))


@pytest.mark.parametrize(
    "pickled", [b"\x80\x02X\3\0\0\0\xed\xa0\x80.", b"\x80\x02cos\nsystem\n.", b"\x80\x02N", b""]
)
def test_half_a_character_and_foreign_names_are_refused(pickled: bytes) -> None:
    with pytest.raises(CorruptCheckpointError):
        harmless_pickle(io.BytesIO(archive(pickled)))


def test_a_long_pickle_is_refused_unread() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(PICKLE_RECORD, b"\x80\x02N.")
    data = bytearray(buffer.getvalue())
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<I", pickle_gate.MAX_PICKLE_BYTES + 1)
    with pytest.raises(CorruptCheckpointError, match=r"data\.pkl has 268435457 bytes"):
        harmless_pickle(io.BytesIO(bytes(data)))


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\xff", b"NaN", b"[Infinity]", b"[" * 100_000, b'"\\ud800"', b'{"\\udc00": 1}',
        b"1" * 5000, b"{" , b"[" + b"[]," * 1_000_000 + b"0]",
    ],
)  # fmt: skip
def test_what_json_may_not_be(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        parse_json(text)
    assert "\n" not in str(raised.value)


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert parse_json(b'"\\ud83d\\ude00 \\\\ud800"') == "\U0001f600 \\ud800"


@pytest.mark.parametrize(
    "item", ["{}", "[]", "[0]", '{"a":0}', '{"%d":0}', "1.5", "123456", '"ab"', '{"a":{"b":[]}}']
)
def test_json_takes_no_more_than_the_account(item: str) -> None:
    text = ("[" + ",".join(item.replace("%d", str(n)) for n in range(COUNT)) + "]").encode()
    tracemalloc.start()
    try:
        found = parse_json(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == COUNT
    assert peak < json_memory(text) + (1 << 16)
