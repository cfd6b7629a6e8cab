"""Where the elements of a tensor lie in memory is part of its state."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._utils import _rebuild_tensor_v2

from checkpoint.components import Holder, Plain, capture
from plora_cl.checkpoint import CheckpointManager
from plora_cl.checkpoint.snapshot.codec import _require_plain, decode, encode
from plora_cl.errors import CorruptCheckpointError


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def channels_last() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(5, 7, 3), nn.ReLU(), nn.Conv2d(7, 5, 1))
    return net.to(memory_format=torch.channels_last)


def transposed() -> nn.Module:
    net = nn.Linear(3, 4)
    net.weight = nn.Parameter(torch.randn(3, 4).t())
    return net


def trained(
    folder: Path, build: Any, example: Tensor, stop: int = 8, **options: Any
) -> dict[str, Tensor]:
    torch.manual_seed(0)
    net = build()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, **options)
    with CheckpointManager(folder, {"net": net, "optimizer": optimizer}) as manager:
        for step in range(manager.resume(), stop):
            optimizer.zero_grad()
            net(example * (step + 1)).square().sum().backward()
            optimizer.step()
            manager.save(step + 1)
    return dict(net.state_dict())


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {}], ids=str)
@pytest.mark.parametrize(
    ("build", "example"),
    [
        (channels_last, noise(2, 5, 9, 9).contiguous(memory_format=torch.channels_last)),
        (transposed, noise(4, 3)),
    ],
)
def test_moments_keep_the_memory_layout_of_their_parameters(
    tmp_path: Path, build: Any, example: Tensor, options: dict[str, Any]
) -> None:
    expected = trained(tmp_path / "whole", build, example, **options)
    trained(tmp_path / "killed", build, example, stop=3, **options)
    found = trained(tmp_path / "killed", build, example, **options)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4).t(),
        torch.randn(2, 3, 4, 5).permute(2, 0, 3, 1),
        torch.randn(7, 5, 1, 1).contiguous(memory_format=torch.channels_last),
        torch.tensor(1.0),
        nn.Parameter(torch.randn(3, 4).t()),
    ],
)
def test_strides_come_back_as_they_were(tensor: Tensor) -> None:
    other = Holder(None)
    decode(encode(capture({"a": Holder(tensor)}))).restore({"a": other})
    assert torch.equal(other.state, tensor)
    assert other.state.stride() == tensor.stride()


@pytest.mark.parametrize("tensor", [torch.randn(4, 6)[:, ::2], torch.zeros(1).expand(5)])
def test_what_does_not_fill_its_memory_is_saved_without_the_gaps(tensor: Tensor) -> None:
    data = encode(capture({"a": Holder(tensor)}))
    found = decode(data).state["a"]["value"]
    assert torch.equal(found, tensor)
    assert found.is_contiguous()


def test_a_tensor_that_changes_its_layout_alone_is_saved_with_the_new_one(tmp_path: Path) -> None:
    holder = Holder(torch.arange(12.0).view(3, 4))
    with CheckpointManager(tmp_path, {"a": holder}) as manager:
        manager.save(1)
        holder.state = holder.state.t().contiguous().t()
        manager.save(2)
    other = Holder(torch.zeros(3, 4))
    with CheckpointManager(tmp_path, {"a": other}) as manager:
        manager.resume()
    assert other.state.stride() == (1, 3)


def rebuilt(size: tuple[int, ...], stride: tuple[int, ...]) -> object:
    class Claim:
        def __reduce__(self) -> tuple[Any, ...]:
            hooks: OrderedDict[str, Any] = OrderedDict()
            return _rebuild_tensor_v2, (
                torch.zeros(16)._typed_storage(), 0, size, stride, False, hooks,
            )  # fmt: skip

    return Claim()


@pytest.mark.parametrize(
    ("size", "stride"),
    [
        pytest.param((1 << 20, 1 << 20), (1, 1 << 20), id="beyond the storage"),
        pytest.param((4, 1 << 30), (1, 0), id="no stride"),
        pytest.param((4, 4), (1, 1), id="overlapping"),
        pytest.param((4, 2), (1, 8), id="with gaps"),
        pytest.param((4, 4), (-1, 4), id="backwards"),
    ],
)
def test_strides_that_no_save_writes_are_refused(
    size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    buffer = io.BytesIO()
    torch.save({"tensor": rebuilt(size, stride)}, buffer)
    buffer.seek(0)
    with pytest.raises((RuntimeError, CorruptCheckpointError), match=r"[Ss]torage|dense"):
        _require_plain(torch.load(buffer, weights_only=True))


def test_one_tensor_under_two_names_is_one_again() -> None:
    shared = torch.zeros(3)
    state = {"fast": shared, "slow": shared, "other": [shared, torch.zeros(3)]}
    fresh = Plain({})
    decode(encode(capture({"average": Plain(state)}))).restore({"average": fresh})
    found = fresh.state
    found["fast"].add_(1)
    assert torch.equal(found["slow"], torch.ones(3))
    assert found["other"][0] is found["fast"]
    assert torch.equal(found["other"][1], torch.zeros(3))


def test_saves_and_resumes_do_not_depend_on_the_default_device(tmp_path: Path) -> None:
    net, frozen = nn.Linear(2, 2), {"weight": torch.ones(3)}
    torch.set_default_device("meta")
    try:
        for done in (0, 1):
            with CheckpointManager(tmp_path, {"net": net}, constants={"base": frozen}) as manager:
                assert manager.resume() == done
                manager.save(done + 1)
    finally:
        torch.set_default_device("cpu")
    assert not net.weight.is_meta
