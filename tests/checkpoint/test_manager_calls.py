"""What a `CheckpointManager` does where calls fail, are interrupted, or come out of order."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NoReturn

import pytest
import torch

from checkpoint.components import Holder
from plora_cl.checkpoint import CheckpointError, CheckpointManager, load_checkpoint
from plora_cl.checkpoint.snapshot import committer, loading, saver
from plora_cl.checkpoint.snapshot.staging import HostStaging

PACKAGE = str(Path(saver.__file__).parents[1])


def defective(*_: object) -> NoReturn:
    raise KeyError("a defect")


def lose(checkpoints: CheckpointManager, step: int) -> None:
    with suppress(KeyError):  # where it is written in place
        checkpoints.save(step)
    while any(thread.name == "checkpoint-writer" for thread in threading.enumerate()):
        time.sleep(0.01)


@pytest.mark.parametrize("background", [True, False])
def test_a_save_that_was_lost_is_an_error_of_flush_and_close_until_a_later_one_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    checkpoints = CheckpointManager(tmp_path, {"value": Holder(1)}, background=background)
    with monkeypatch.context() as patch:
        patch.setattr(committer, "encode_with_manifest", defective)
        lose(checkpoints, 1)
        with pytest.raises(KeyError, match="a defect"):
            checkpoints.save(2)
    for _ in range(2):
        with pytest.raises(KeyError, match="a defect"):
            checkpoints.flush()
    checkpoints.save(3)
    checkpoints.flush()
    monkeypatch.setattr(committer, "encode_with_manifest", defective)
    lose(checkpoints, 4)
    with pytest.raises(KeyError, match="a defect"):
        checkpoints.close()
    assert load_checkpoint(tmp_path).snapshot.cursor["step"] == 3


def test_saves_that_an_interrupt_has_dropped_count_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = CheckpointManager(tmp_path, {"value": Holder(1)})
    with monkeypatch.context() as patch:
        patch.setattr(
            "plora_cl.checkpoint.snapshot.writer.BackgroundWriter.submit",
            lambda writer, job, *, dropped: dropped(),
        )
        checkpoints.save(1)
    with pytest.raises(CheckpointError, match=r"batch0\.pt: its save was dropped"):
        checkpoints.flush()
    checkpoints.save(2)
    checkpoints.close()


class InterruptsAt:
    """Raises `KeyboardInterrupt` at the n-th event within the package, on this thread."""

    def __init__(self, event: int) -> None:
        self.begin(event)

    def begin(self, event: int) -> None:
        self.left = event
        self._seen: set[tuple[CodeType, str, int]] = set()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> InterruptsAt | None:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        # Python looks for signals at calls and returns: not before the store that ends `alone`, nor
        # where the line of a `with` comes again before its exit.
        at = (frame.f_code, event, frame.f_lineno)
        if event in ("call", "line") and frame.f_code.co_name != "alone" and at not in self._seen:
            self._seen.add(at)
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


@pytest.mark.parametrize("background", [True, False])
def test_an_interrupt_at_any_instant_of_a_save_leaves_later_saves_working(
    tmp_path: Path, background: bool
) -> None:
    weights, number, is_whole = torch.zeros(3), 1, False
    checkpoints = CheckpointManager(tmp_path, {"w": Holder(weights)}, background=background)
    checkpoints.resume()
    checkpoints.save(1)
    checkpoints.flush()
    for event in range(1, 10_000, 1 if background else 13):
        interrupt, before = InterruptsAt(event), sys.gettrace()
        is_whole = False
        for _ in range(3):  # memory that was lost twice would make the third wait for ever
            number += 1
            weights.fill_(number)
            sys.settrace(interrupt)
            try:
                checkpoints.save(number)
                is_whole = True
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before)
            interrupt.begin(event)
        if event % 20 == 1:
            number += 1
            weights.fill_(number)
            checkpoints.save(number)
            checkpoints.flush()
            snapshot = load_checkpoint(tmp_path).snapshot
            assert snapshot.state["w"]["value"].tolist() == [snapshot.cursor["step"]] * 3
        if is_whole:
            break
    assert is_whole
    checkpoints.save(number + 1)
    checkpoints.close()


@pytest.mark.parametrize("method", ["save", "flush", "resume", "close"])
def test_a_call_within_a_save_is_refused_and_names_the_way_out(tmp_path: Path, method: str) -> None:
    class Signalled(Holder):
        def state_dict(self) -> dict[str, Any]:
            signal.raise_signal(signal.SIGALRM)
            return super().state_dict()

    part = Signalled(1)
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        with CheckpointManager(tmp_path, {"part": part}) as checkpoints:
            checkpoints.save(1)
            arguments = (2,) if method == "save" else ()
            signal.signal(signal.SIGALRM, lambda *_: getattr(checkpoints, method)(*arguments))
            with pytest.raises(CheckpointError, match=r"while save\(\) runs.*handler set a flag"):
                checkpoints.save(2)
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            checkpoints.save(3)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert load_checkpoint(tmp_path).snapshot.cursor["step"] == 3


def test_a_forked_child_leaves_at_once_and_cannot_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, wait = threading.Event(), HostStaging.wait

    def late(memory: HostStaging) -> None:
        if threading.current_thread().name == "checkpoint-writer":
            go.wait(60)
        wait(memory)

    monkeypatch.setattr(HostStaging, "wait", late)
    with CheckpointManager(tmp_path, {"value": Holder(1)}) as checkpoints:
        checkpoints.save(1)
        child = os.fork()
        if child == 0:  # no assertion may leave the child
            signal.alarm(20)
            refused = 0
            for method, arguments in (("save", (2,)), ("flush", ()), ("resume", ())):
                try:
                    getattr(checkpoints, method)(*arguments)
                except CheckpointError as error:
                    refused += "forked child" in str(error)
            checkpoints.close()
            os._exit(refused)
        _, status = os.waitpid(child, 0)
        go.set()
        assert os.waitstatus_to_exitcode(status) == 3
    assert load_checkpoint(tmp_path).snapshot.cursor["step"] == 1


def test_after_close_only_close_is_accepted(tmp_path: Path) -> None:
    checkpoints = CheckpointManager(tmp_path, {"value": Holder(1)})
    checkpoints.save(1)
    checkpoints.close()
    checkpoints.close()
    for call in (checkpoints.flush, checkpoints.resume, lambda: checkpoints.save(2)):
        with pytest.raises(CheckpointError, match=r"after close\(\): make another"):
            call()


@pytest.mark.parametrize("change", ["half", "grow", "view"])
def test_a_tensor_whose_data_is_replaced_is_saved_as_it_is_now(tmp_path: Path, change: str) -> None:
    head = torch.nn.Linear(2, 2)
    with CheckpointManager(tmp_path, {"head": Holder(head.weight)}) as checkpoints:
        checkpoints.save(1)
        checkpoints.save(2)
        checkpoints.save(3)
        if change == "half":
            head.half()
        elif change == "grow":
            head.weight.data = torch.cat([head.weight.data, torch.zeros(1, 2)])
        else:
            head.weight.data = head.weight.data.view(4)
        for step in (4, 5, 6):
            checkpoints.save(step)
    snapshot = load_checkpoint(tmp_path).snapshot
    saved = snapshot.state["head"]["value"]
    assert snapshot.cursor["step"] == 6
    assert saved.dtype == head.weight.dtype
    assert torch.equal(saved, head.weight)


class Versioned(torch.nn.Module):
    """Divides what earlier versions saved by ten, as modules of PyTorch migrate theirs."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def _load_from_state_dict(
        self, state: dict[str, Any], prefix: str, local: dict[str, Any], *rest: Any
    ) -> None:
        if (local.get("version") or 1) < self._version:
            state[f"{prefix}scale"] = state[f"{prefix}scale"] / 10
        super()._load_from_state_dict(state, prefix, local, *rest)


def test_a_module_with_a_version_is_not_migrated_when_it_is_resumed(tmp_path: Path) -> None:
    with CheckpointManager(tmp_path, {"module": Versioned()}) as checkpoints:
        checkpoints.save(1)
    module = Versioned()
    with CheckpointManager(tmp_path, {"module": module}) as checkpoints:
        assert checkpoints.resume() == 1
    assert module.scale.item() == 1


def test_a_folder_is_read_while_its_checkpoints_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, saved = loading.load, 2
    with CheckpointManager(tmp_path, {"value": Holder(1)}, keep_last=1) as checkpoints:
        checkpoints.save(1)
        checkpoints.flush()

        def behind(*arguments: Any, **options: Any) -> Any:
            nonlocal saved
            if saved < 5:  # the listed one is gone
                checkpoints.save(saved)
                checkpoints.flush()
                saved += 1
            return load(*arguments, **options)

        monkeypatch.setattr(loading, "load", behind)
        assert load_checkpoint(tmp_path).snapshot.cursor["step"] == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"disk_budget": -5}, ValueError, "disk_budget is -5; expected at least 1"),
        ({"disk_budget": 0}, ValueError, "disk_budget is 0; expected at least 1"),
        ({"disk_budget": "1 GB"}, TypeError, "disk_budget is '1 GB'; expected an integer"),
        ({"keep_last": 1.5}, TypeError, r"keep_last is 1\.5; expected an integer"),
    ],
)
def test_an_option_that_is_out_of_range_is_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        CheckpointManager(tmp_path / "new", {"part": Holder(1)}, **options)
    assert not (tmp_path / "new").exists()


def test_steps_begin_at_1_and_never_go_back(tmp_path: Path) -> None:
    with CheckpointManager(tmp_path, {"value": Holder(1)}) as checkpoints:
        with pytest.raises(ValueError, match="step is 0; expected at least 1"):
            checkpoints.save(0)
        checkpoints.save(3)
        checkpoints.save(3)
        with pytest.raises(ValueError, match="step is 2; expected at least 3"):
            checkpoints.save(2)
        first = checkpoints.save(4).with_name("checkpoint_task0_epoch0_batch2.pt")
    with CheckpointManager(tmp_path, {"value": Holder(1)}) as checkpoints:
        assert checkpoints.resume() == 4
        with pytest.raises(ValueError, match="step is 3; expected at least 4"):
            checkpoints.save(3)
        assert checkpoints.resume(first) == 3  # which is how to go back
        checkpoints.save(4)
        checkpoints.flush()
    assert load_checkpoint(tmp_path).snapshot.cursor["step"] == 4


@pytest.mark.parametrize(
    ("components", "message"),
    [
        (torch.nn.Linear(1, 1), "components is a Linear; expected a dict"),
        ([torch.nn.Linear(1, 1)], "components is a list; expected a dict"),
        ({"net": 3}, r"component 'net' is a int, which has no state_dict\(\)"),
    ],
)
def test_components_that_cannot_be_saved_are_refused_by_name(
    tmp_path: Path, components: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        CheckpointManager(tmp_path / "new", components)
    assert not (tmp_path / "new").exists()
