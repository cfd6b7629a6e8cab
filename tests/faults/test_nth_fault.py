"""B: the n-th system call of a save fails, for every n, once and from then on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from checkpoint.samples import sealed
from faults.faulty_calls import FaultyCalls
from faults.scenario import newest_note, older_run, partial_files, save
from plora_cl.checkpoint.format.naming import checkpoint_name
from plora_cl.checkpoint.store import hard_links
from plora_cl.checkpoint.store.retention import collect_garbage
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.errors import CheckpointError


def os_error(code: int) -> Callable[[], Exception]:
    return lambda: OSError(code, os.strerror(code))


FAULTS: dict[str, Callable[[], Exception] | None] = {
    **{errno.errorcode[code]: os_error(code) for code in (errno.ENOSPC, errno.EIO)},
    **{errno.errorcode[code]: os_error(code) for code in (errno.EMFILE, errno.EINTR)},
    "MemoryError": MemoryError,
    "short write": None,
}


def calls_of_a_save(directory: Path) -> int:
    older_run(directory)
    calls = FaultyCalls(None, lambda _: False)
    with calls.active():
        save(CheckpointStore(directory))
    return calls.count


EACH_FAULT = pytest.mark.parametrize(
    "fault",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in ("EMFILE", "EINTR") else [])
        for name in FAULTS
    ],
)
EACH_DURATION = pytest.mark.parametrize("persistent", [False, True], ids=["once", "persistently"])


@pytest.mark.fault
@EACH_DURATION
@EACH_FAULT
def test_a_fault_in_any_system_call_loses_nothing_and_the_next_save_works(
    tmp_path: Path, fault: str, persistent: bool
) -> None:
    count = calls_of_a_save(tmp_path / "count")
    assert count > 40
    failed = 0
    for n in range(count):
        directory = tmp_path / str(n)
        older_run(directory)
        store = CheckpointStore(directory)
        calls = FaultyCalls(FAULTS[fault], n.__le__ if persistent else n.__eq__)
        acceptable = {"new"}
        with calls.active():
            try:
                save(store)
            except (CheckpointError, MemoryError):
                failed += 1
                acceptable.add("old")
        assert newest_note(directory) in acceptable
        if not persistent:
            assert not partial_files(directory)
        save(store)
        assert newest_note(directory) == "new"
        collect_garbage(CheckpointStore(directory))
        assert not partial_files(directory)
        assert len(list((directory / "objects").iterdir())) == 2
    assert failed == 0 if fault == "short write" else failed > count // 2
    print(f"{count} faults, {fault}, {'persistent' if persistent else 'once'}: {failed} reported")


def test_a_flush_that_failed_is_never_tried_again_on_the_same_file(tmp_path: Path) -> None:
    """The kernel drops the pages it could not write: a second flush would succeed, and lie."""
    failed_flushes = 0
    for n in range(calls_of_a_save(tmp_path / "count")):
        directory = tmp_path / str(n)
        older_run(directory)
        store = CheckpointStore(directory)
        calls = FaultyCalls(os_error(errno.EIO), n.__eq__)
        with calls.active():
            try:
                save(store)
            except CheckpointError:
                save(store)
        failed_flushes += calls.failed_flushes
        assert newest_note(directory) == "new"
    assert failed_flushes == 2  # the new object, and the checkpoint


def save_what_a_sibling_has(store: CheckpointStore) -> None:
    ref = store.objects.put(b"base")
    store.commit(checkpoint_name(0, 0, 1), sealed(note="linked", objects={"base": ref}))


@pytest.mark.fault
@EACH_DURATION
@EACH_FAULT
def test_a_fault_while_an_object_is_linked_harms_neither_experiment(
    tmp_path: Path, fault: str, persistent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hard_links, "SHARED_FROM_BYTES", 1)
    linked = 0
    for n in range(1000):
        one, two = (tmp_path / str(n) / name / "checkpoints" for name in ("one", "two"))
        save_what_a_sibling_has(CheckpointStore(one))
        store = CheckpointStore(two)
        calls = FaultyCalls(FAULTS[fault], n.__le__ if persistent else n.__eq__)
        with calls.active(), suppress(CheckpointError, MemoryError):
            save_what_a_sibling_has(store)
        assert newest_note(one) == "linked"
        assert newest_note(two) in ("", "linked")
        if not persistent:
            assert not partial_files(two)
        was_reached = calls.count > n
        calls.is_over = True
        with calls.active():
            save_what_a_sibling_has(store)
        assert newest_note(one) == newest_note(two) == "linked"
        path = next((one / "objects").iterdir())
        linked += path.samefile(two / "objects" / path.name)
        if not was_reached:
            assert linked > 1
            print(f"{n} faults, {fault}, {'persistent' if persistent else 'once'}")
            return
    raise AssertionError("the save never ends")
