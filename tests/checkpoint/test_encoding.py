from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from checkpoint.components import Holder, Learner, capture
from checkpoint.samples import seal
from plora_cl.checkpoint.format.manifest import Manifest, ObjectRef
from plora_cl.checkpoint.format.sealed_zip import open_sealed
from plora_cl.checkpoint.snapshot.codec import decode, encode
from plora_cl.checkpoint.snapshot.snapshot import Snapshot
from plora_cl.errors import CorruptCheckpointError, IncompatibleCheckpointError
from plora_cl.state import Stateful, TensorPart
from plora_cl.state_digest import state_digest

PLAIN = (dict, list, str, int, float, bool, type(None), torch.Tensor)


def learned() -> Snapshot:
    learner = Learner()
    learner.step()
    return capture(learner.components(), objects={"base": ObjectRef("ab" * 32, 5)})


def types_in(node: Any) -> set[type]:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return {type(node)}.union(*map(types_in, inner))


def test_a_snapshot_is_read_back_bit_by_bit() -> None:
    snapshot = learned()
    found = decode(encode(snapshot))
    assert state_digest(found.state) == state_digest(snapshot.state)
    for field in fields(Snapshot):
        if field.name not in ("state", "trained_tasks"):
            assert getattr(found, field.name) == getattr(snapshot, field.name)
    assert list(found.trained_tasks) == ["news"]


def test_equal_snapshots_give_equal_bytes() -> None:
    assert encode(learned()) == encode(learned())
    assert encode(decode(encode(learned()))) == encode(learned())


@pytest.mark.parametrize("mmap", [False, True])
def test_plain_pytorch_opens_the_file_and_finds_plain_types(tmp_path: Path, mmap: bool) -> None:
    snapshot = learned()
    path = tmp_path / "checkpoint_task0_epoch0_batch0.pt"
    path.write_bytes(encode(snapshot))
    tree = torch.load(path, weights_only=True, mmap=mmap)
    assert types_in(tree) <= set(PLAIN)
    assert set(tree) == {
        *("format", "format_version", "cursor", "trained_tasks", "seed", "loss", "settings"),
        *("identity", "environment", "state", "objects", "state_digest"),
    }
    assert tree["format"] == "plora_cl.checkpoint"
    assert tree["format_version"] == 1
    assert tree["cursor"] == {"task": 1, "phase": "train", "epoch": 2, "batch": 3, "step": 4}
    assert tree["objects"] == {"base": {"sha256": "ab" * 32, "bytes": 5}}
    assert tree["state_digest"] == state_digest(tree["state"])
    assert tree["state"]["optimizer"]["param_groups"][0]["betas"] == [0.9, 0.999]


def test_the_manifest_says_what_the_tree_says(tmp_path: Path) -> None:
    snapshot = learned()
    path = tmp_path / "any.pt"
    path.write_bytes(encode(snapshot))
    manifest = open_sealed(path.read_bytes())
    assert manifest.cursor == snapshot.cursor
    assert manifest.objects == snapshot.objects
    assert manifest.settings == snapshot.facts.settings
    assert manifest.state_digest == state_digest(snapshot.state)
    assert (manifest.seed, manifest.loss, manifest.trained_tasks) == (42, 0.25, ["news"])


@pytest.mark.parametrize("loss", [None, float("nan"), float("-inf")])
def test_a_loss_that_is_no_number_is_kept(loss: float | None) -> None:
    found = decode(encode(capture({}, loss=loss)))
    assert repr(found.loss) == repr(loss)


def test_the_file_holds_little_more_than_weights_and_moments() -> None:
    layers = nn.ModuleList(
        nn.ParameterList([torch.randn(8, 384), torch.randn(384, 8)]) for _ in range(50)
    )
    parameters = dict(layers.named_parameters(prefix="encoder.layer.attention.self.query.lora"))
    trainable = sum(parameter.numel() for parameter in parameters.values())
    assert len(parameters) == 100
    assert trainable > 300_000
    optimizer = AdamW(parameters.values())
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    components: dict[str, Stateful] = {
        "adapter": TensorPart(parameters),
        "optimizer": optimizer,
        "random": Learner().random,
    }
    objects = {f"adapter-{task}": ObjectRef(f"{task:064x}", 1 << 20) for task in range(50)}
    size = len(encode(capture(components, objects=objects)))
    assert size <= 1.05 * 12 * trainable + 64 * 1024
    assert size <= 12 * trainable + 128 * 1024


def test_a_flip_in_any_region_of_a_real_file_is_refused() -> None:
    data = encode(learned())
    for place in range(0, len(data), 41):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(CorruptCheckpointError):
            decode(bytes(damaged))


def resealed(tree: object) -> bytes:
    """Return ``tree`` in a file whose seal and manifest are those of an honest one."""
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return seal(buffer.getvalue(), open_sealed(encode(learned())))


def honest_tree() -> dict[str, Any]:
    tree: dict[str, Any] = torch.load(io.BytesIO(encode(learned())), weights_only=True)
    return tree


def test_an_honest_tree_is_accepted() -> None:
    assert decode(resealed(honest_tree())).facts.seed == 42


def endless() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def doubled() -> list[Any]:
    """Return 2**60 leaves in a few hundred bytes."""
    node: list[Any] = [0]
    for _ in range(60):
        node = [node, node]
    return node


def deep() -> list[Any]:
    node: list[Any] = []
    for _ in range(200):
        node = [node]
    return node


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(endless(), id="endless list"),
        pytest.param(doubled(), id="list of itself doubled"),
        pytest.param(deep(), id="deep list"),
        pytest.param(torch.zeros(1).expand(1 << 40), id="expanded tensor"),
        pytest.param(torch.zeros(4, 4).t()[1:], id="strided tensor"),
        pytest.param(nn.Parameter(torch.zeros(1)), id="parameter"),
        pytest.param(OrderedDict(a=1), id="ordered dict"),
        pytest.param((1, 2), id="tuple"),
        pytest.param({None: 1}, id="odd key"),
        pytest.param(torch.float32, id="dtype"),
        pytest.param(torch.empty(3, device="meta"), id="meta tensor"),
    ],
)
def test_a_tree_that_is_not_plain_is_refused(value: object) -> None:
    tree = honest_tree()
    tree["state"]["model"]["0.weight"] = value
    with pytest.raises(
        CorruptCheckpointError, match=r"nested endlessly|it holds a|it has a key|names"
    ):
        decode(resealed(tree))


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('executed')",))


def test_a_pickle_that_calls_something_is_refused_without_calling_it() -> None:
    with pytest.raises(CorruptCheckpointError, match="its pickle names '__builtin__ exec'"):
        decode(resealed({"state": Exploit()}))
    with pytest.raises(SystemExit):
        pickle.loads(pickle.dumps(Exploit()))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "something else"),
        ("format_version", None),
        ("seed", True),
        ("loss", "low"),
        ("state", []),
        ("objects", {"base": {"sha256": "../" * 22, "bytes": 5}}),
        ("objects", {}),
        ("seed", 43),
        ("settings", {"lora_r": 9}),
        ("settings", {"lora_r": float("nan")}),
        ("settings", {"lora_r": {1: 1, "1": 1}}),
        ("settings", {"lora_r": torch.zeros(1)}),
        ("trained_tasks", []),
        ("trained_tasks", [1]),
        ("cursor", {}),
        ("state_digest", "0" * 64),
    ],
)
def test_a_tree_that_contradicts_its_manifest_is_refused(key: str, value: object) -> None:
    with pytest.raises(CorruptCheckpointError):
        decode(resealed({**honest_tree(), key: value}))


@pytest.mark.parametrize("key", ["identity", "environment", "state", "cursor"])
def test_a_tree_that_lacks_something_is_refused(key: str) -> None:
    tree = honest_tree()
    del tree[key]
    with pytest.raises(CorruptCheckpointError, match=f"no valid {key}"):
        decode(resealed(tree))


def test_a_changed_state_is_refused_even_under_an_intact_seal() -> None:
    tree = honest_tree()
    tree["state"]["optimizer"]["param_groups"][0]["lr"] = 0.5
    with pytest.raises(CorruptCheckpointError, match="state_digest"):
        decode(resealed(tree))


def test_a_later_format_version_is_incompatible_not_damaged() -> None:
    with pytest.raises(IncompatibleCheckpointError, match="version 2"):
        decode(resealed({**honest_tree(), "format_version": 2}))


def test_a_file_that_is_no_torch_archive_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", b"garbage")
    manifest: Manifest = replace(open_sealed(encode(learned())), seed=1)
    with pytest.raises(CorruptCheckpointError, match="is not a pickle"):
        decode(seal(buffer.getvalue(), manifest))


DTYPES = sorted(
    {
        dtype
        for dtype in vars(torch).values()
        if isinstance(dtype, torch.dtype) and (dtype.is_floating_point or dtype.itemsize > 1)
    }
    - {torch.qint32},
    key=str,
)


@pytest.mark.filterwarnings("ignore:.*support is experimental")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_dtype_are_read_back(dtype: torch.dtype) -> None:
    tensor = torch.zeros(3, dtype=dtype)
    found = decode(encode(capture({"a": Holder(tensor)}))).state["a"]["value"]
    assert state_digest(found) == state_digest(tensor)


def test_a_state_without_tensors_is_a_checkpoint_too() -> None:
    assert decode(encode(capture({"a": Holder({"k": [None, True]})}))).state == {
        "a": {"value": {"k": [None, True]}}
    }
