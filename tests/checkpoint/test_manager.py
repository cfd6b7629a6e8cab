"""`CheckpointManager` over real files: what any loop gets."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import plora_cl.checkpoint
from checkpoint.components import Holder, Learner
from plora_cl.checkpoint import (
    CheckpointEntry,
    CheckpointError,
    CheckpointManager,
    CheckpointNotFoundError,
    CheckpointStore,
    CorruptCheckpointError,
    ExperimentExistsError,
    ExperimentLockedError,
    IncompatibleCheckpointError,
    Stateful,
    load_checkpoint,
    split_module,
    verify,
)
from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.snapshot.codec import encode
from plora_cl.checkpoint.snapshot.committer import Committer
from plora_cl.checkpoint.snapshot.loading import load
from plora_cl.checkpoint.snapshot.staging import HostStaging
from plora_cl.state_digest import state_digest

BASE = {"weight": torch.arange(6.0).view(2, 3)}


def parts(learner: Learner) -> dict[str, Stateful]:
    components = learner.components()
    del components["random"]  # the manager has its own
    return components


def manager(folder: Path, learner: Learner, **changes: Any) -> CheckpointManager:
    options: dict[str, Any] = {"constants": {"base": BASE}, "identity": {"lr": 0.1}, **changes}
    return CheckpointManager(folder, parts(learner), **options)


def train(folder: Path, steps: int, **changes: Any) -> Learner:
    """Learn up to ``steps`` from wherever ``folder`` stands, with a save after each step."""
    learner = Learner()
    with manager(folder, learner, **changes) as checkpoints:
        for step in range(checkpoints.resume(), steps):
            learner.step()
            checkpoints.save(step + 1)
    return learner


def names(folder: Path) -> list[str]:
    return [entry.path.name for entry in CheckpointStore(folder / "checkpoints").entries()]


def last(folder: Path) -> Path:
    return CheckpointStore(folder / "checkpoints").entries()[-1].path


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_loop_stopped_after_any_step_ends_bitwise_like_one_that_was_not(tmp_path: Path) -> None:
    train(tmp_path / "whole", 6)
    expected = state_digest(load_checkpoint(tmp_path / "whole").snapshot.state)
    for steps in range(1, 7):
        train(tmp_path / "parts", steps)
        torch.rand(steps)  # what happens in between does not matter
    found = load_checkpoint(tmp_path / "parts").snapshot
    assert found.cursor["step"] == 6
    assert state_digest(found.state) == expected


def test_what_is_saved_is_the_state_at_the_save_whatever_the_loop_does_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = HostStaging.wait

    def late(staging: HostStaging) -> None:
        time.sleep(0.05)
        wait(staging)

    monkeypatch.setattr(HostStaging, "wait", late)
    weights = torch.zeros(3)
    with CheckpointManager(tmp_path, {"weights": Holder(weights)}) as checkpoints:
        checkpoints.resume()
        checkpoints.save(1)
        weights.add_(1)
    assert load_checkpoint(tmp_path).snapshot.state["weights"]["value"].tolist() == [0, 0, 0]


def test_a_branch_leaves_what_was_loaded_although_that_file_is_replaced_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "a", 2)
    expected = state_digest(load_checkpoint(last(tmp_path / "a")).snapshot.state)

    def replaced_once_loaded(*args: Any, **options: Any) -> Any:
        found = load(*args, **options)
        changed = replace(found.snapshot, loss=7.0, state={"another": {}})
        CheckpointStore(found.entry.path.parent).commit(found.entry.name, encode(changed))
        return found

    monkeypatch.setattr("plora_cl.checkpoint.manager.load", replaced_once_loaded)
    with manager(tmp_path / "b", Learner()) as checkpoints:
        assert checkpoints.resume(last(tmp_path / "a")) == 2
    (departure,) = load_checkpoint(last(tmp_path / "b")).snapshot.trajectory.history
    assert departure.state_digest == expected


def test_a_budget_that_cannot_be_kept_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, 4, disk_budget=1)
    assert len(names(tmp_path)) == 1
    assert caplog.text.count("budget is 1 ") == 1


def test_a_loop_may_change_its_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with manager(Path("run"), Learner()) as checkpoints:
        checkpoints.resume()
        monkeypatch.chdir(tmp_path / "elsewhere")
        checkpoints.save(1)
    assert verify(tmp_path / "run").is_intact
    assert names(tmp_path / "run") == ["checkpoint_task0_epoch0_batch0.pt"]


def test_constants_are_stored_once_and_shared(tmp_path: Path) -> None:
    train(tmp_path, 4, keep_last=3)
    store = CheckpointStore(tmp_path / "checkpoints")
    refs = {ref for entry in store.entries() for ref in store.manifest(entry).objects.values()}
    assert len(store.entries()) == 3
    assert len(refs) == 1
    assert [path.name for path in store.objects.directory.iterdir()] == [refs.pop().file_name]
    assert torch.equal(load_checkpoint(tmp_path).objects["base"]["weight"], BASE["weight"])


def test_a_module_is_split_by_what_requires_gradients() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    module[0].requires_grad_(requires_grad=False)
    live, frozen = split_module(module)
    assert {"1.weight", "1.bias", "1.running_mean"} <= live.state_dict().keys()
    assert frozen.state_dict().keys() == {"0.weight", "0.bias"}


def test_a_constant_that_is_written_to_is_refused_at_the_next_save(tmp_path: Path) -> None:
    base = {"weight": torch.zeros(2)}
    with manager(tmp_path, Learner(), constants={"base": base}) as checkpoints:
        checkpoints.save(1)
        checkpoints.flush()
        base["weight"].add_(1)
        with pytest.raises(CheckpointError, match="written to: base"):
            checkpoints.save(2)


def test_a_damaged_newest_checkpoint_costs_the_steps_since_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, 4)
    damage(last(tmp_path))
    with manager(tmp_path, Learner()) as checkpoints, caplog.at_level(logging.WARNING):
        assert checkpoints.resume() == 3
    assert "skipping a damaged checkpoint" in caplog.text
    assert not verify(tmp_path).is_intact
    damage(tmp_path / "checkpoints" / names(tmp_path)[0])
    with (
        manager(tmp_path, Learner()) as checkpoints,
        pytest.raises(CorruptCheckpointError, match="every checkpoint"),
    ):
        checkpoints.resume()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"identity": {"lr": 0.2}}, "identity.lr: 0.1 in the checkpoint, now 0.2"),
        ({"constants": {"base": {"weight": torch.zeros(2, 3)}}}, r"constants.base: \w+ in the"),
        ({"constants": {}}, r"constants.base: \w+ in the checkpoint, now nothing"),
    ],
)
def test_another_run_is_refused_by_what_differs(
    tmp_path: Path, change: dict[str, Any], key: str
) -> None:
    train(tmp_path, 2)
    learner = Learner(seed=5)
    before = state_digest({name: part.state_dict() for name, part in parts(learner).items()})
    with (
        manager(tmp_path, learner, **change) as checkpoints,
        pytest.raises(IncompatibleCheckpointError, match=key),
    ):
        checkpoints.resume()
    after = state_digest({name: part.state_dict() for name, part in parts(learner).items()})
    assert after == before


def test_another_machine_is_refused_unless_it_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, 3)
    known = plora_cl.checkpoint.manager.environment  # type: ignore[attr-defined]
    monkeypatch.setattr(
        "plora_cl.checkpoint.manager.environment", lambda **o: {**known(**o), "threads": 99}
    )
    with manager(tmp_path, Learner()) as checkpoints:
        with pytest.raises(IncompatibleCheckpointError, match=r"threads.*accept_changes=True"):
            checkpoints.resume()
        assert checkpoints.resume(accept_changes=True) == 3


def test_an_accepted_change_begins_a_branch_and_what_it_leaves_is_moved_aside(
    tmp_path: Path,
) -> None:
    train(tmp_path, 4)
    earlier = tmp_path / "checkpoints" / names(tmp_path)[0]
    with manager(tmp_path, Learner(), identity={"lr": 9}) as checkpoints:
        assert checkpoints.resume(earlier, accept_changes=True) == 3
        found = CheckpointStore(tmp_path / "checkpoints")
        assert names(tmp_path) == [earlier.name]
        assert [entry.name for entry in found.retired()]
    assert load_checkpoint(tmp_path).snapshot.facts.identity == {"lr": 9}
    with manager(tmp_path, Learner(), identity={"lr": 9}) as checkpoints:
        assert checkpoints.resume() == 3


def test_one_manager_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    with manager(tmp_path, Learner()), pytest.raises(ExperimentLockedError):
        manager(tmp_path, Learner())
    manager(tmp_path, Learner()).close()


def test_checkpoints_are_never_overwritten_by_a_loop_that_does_not_resume(tmp_path: Path) -> None:
    train(tmp_path, 2)
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").glob("*.pt")}
    with (
        manager(tmp_path, Learner()) as checkpoints,
        pytest.raises(ExperimentExistsError, match=r"call resume\(\)"),
    ):
        checkpoints.save(1)
    assert {path: path.read_bytes() for path in (tmp_path / "checkpoints").glob("*.pt")} == before


def test_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    train(tmp_path, 5, keep_last=1)
    assert names(tmp_path) == ["checkpoint_task0_epoch0_batch4.pt"]
    train(tmp_path, 9, keep_last=3)
    assert len(names(tmp_path)) == 3


def test_what_a_killed_process_left_is_cleaned_up_where_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Committer, "_clean_up", lambda *_: None)
        train(tmp_path, 3, keep_last=1)
    assert len(names(tmp_path)) == 3
    with manager(tmp_path, Learner(), keep_last=1) as checkpoints:
        assert checkpoints.resume() == 3
        assert names(tmp_path) == ["checkpoint_task0_epoch0_batch2.pt"]


def test_a_disk_that_refuses_costs_one_save_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    learner = Learner()
    with manager(tmp_path, learner) as checkpoints:
        checkpoints.save(1)
        checkpoints.flush()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(Filesystem, "write", full)
            checkpoints.save(2)
            with pytest.raises(CheckpointError, match="No space left"):
                checkpoints.flush()
        assert "the next save, if any, tries again" in caplog.text
        checkpoints.save(3)
    assert load_checkpoint(tmp_path).snapshot.cursor["step"] == 3


def test_components_that_are_missing_are_named(tmp_path: Path) -> None:
    train(tmp_path, 1)
    components = {**parts(Learner()), "scaler": Holder(1)}
    with (
        CheckpointManager(
            tmp_path, components, constants={"base": BASE}, identity={"lr": 0.1}
        ) as checkpoints,
        pytest.raises(IncompatibleCheckpointError, match=r"lacks \['scaler'\]"),
    ):
        checkpoints.resume()


def test_what_cannot_be_saved_is_refused_with_its_place(tmp_path: Path) -> None:
    with (
        CheckpointManager(tmp_path, {"odd": Holder({1, 2})}) as checkpoints,
        pytest.raises(TypeError, match="/odd/value"),
    ):
        checkpoints.save(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_last": 0}, "keep_last is 0"),
        ({"components": {"random": Holder(1)}}, "'random': the name is taken"),
        ({"components": {}}, "components is empty; expected what changes"),
        ({"components": {"": Holder(1)}}, "component '': expected a name with at least one"),
        ({"components": {"a/b": Holder(1)}}, "component 'a/b': expected a name .* no slash"),
        ({"constants": {"a/b": BASE}}, "constants 'a/b': expected a name .* no slash"),
        ({"identity": {"lr": float("nan")}}, r"identity/lr is nan; expected a finite number"),
    ],
)
def test_wrong_arguments_are_refused_and_lock_nothing(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    components = options.pop("components", {"part": Holder(1)})
    with pytest.raises(ValueError, match=message):
        CheckpointManager(tmp_path, components, **options)
    CheckpointManager(tmp_path, {"part": Holder(1)}).close()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["\udcff"], r"'/identity/files/0' is a text with half a character"),
        (1 << 4000, r"'/identity/files' is an integer of 4001 bits"),
    ],
    ids=("half a character", "long integer"),
)
def test_an_identity_that_no_checkpoint_can_hold_is_refused_before_training(
    tmp_path: Path, value: object, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        CheckpointManager(tmp_path, {"part": Holder(1)}, identity={"files": value})
    CheckpointManager(tmp_path, {"part": Holder(1)}).close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"identity": {"a": [object()]}}, r"identity/a/0 is an object; expected .*str, int"),
        ({"identity": {"a": {1: 2}}}, "the key 1 of identity/a is an int; .*pass '1'"),
        ({"identity": []}, "identity is a list; expected a dict"),
        ({"constants": [torch.zeros(1)]}, "constants is a list; expected a dict"),
        ({"constants": {1: BASE}}, "constants 1: the name is a int; expected a str"),
        ({"constants": {"a": {0: torch.zeros(1)}}}, "constants a/0: the name is 0; expected a str"),
        (
            {"constants": {"a": {"__metadata__": torch.zeros(1)}}},
            "a str, not __metadata__",
        ),
        ({"components": {1: Holder(1)}}, "component 1: the name is a int; expected a str"),
    ],
)
def test_arguments_of_another_kind_are_refused_with_their_place_and_lock_nothing(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    components = options.pop("components", {"part": Holder(1)})
    with pytest.raises(TypeError, match=message):
        CheckpointManager(tmp_path, components, **options)
    CheckpointManager(tmp_path, {"part": Holder(1)}).close()


def test_a_loop_that_fails_leaves_its_last_save_durable_and_its_folder_free(
    tmp_path: Path,
) -> None:
    def loop() -> None:
        with manager(tmp_path, Learner()) as checkpoints:
            checkpoints.save(1)
            raise KeyError("a defect of the loop")

    with pytest.raises(KeyError):
        loop()
    assert names(tmp_path)
    manager(tmp_path, Learner()).close()


def test_saving_in_place_writes_the_same_bytes(tmp_path: Path) -> None:
    train(tmp_path / "one", 3)
    train(tmp_path / "two", 3, background=False)
    assert last(tmp_path / "one").read_bytes() == last(tmp_path / "two").read_bytes()


def test_a_checkpoint_is_read_by_its_path_or_by_its_folder(tmp_path: Path) -> None:
    train(tmp_path, 2)
    one, two = load_checkpoint(tmp_path), load_checkpoint(last(tmp_path))
    assert one.entry == two.entry
    assert verify(last(tmp_path)).is_intact
    for wrong in (tmp_path / "nowhere", tmp_path / "checkpoint_task0_epoch0_batch99.pt"):
        for read in (load_checkpoint, verify):
            with pytest.raises(CheckpointNotFoundError):
                read(wrong)


def test_an_experiment_folder_may_be_called_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(Path("checkpoints"), 2)
    for place in ("checkpoints", "checkpoints/checkpoints"):
        assert load_checkpoint(place).snapshot.cursor["step"] == 2
        assert len(verify(place).verdicts) == 2
    damage(last(tmp_path / "checkpoints"))
    assert not verify("checkpoints").is_intact


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "nowhere does not exist; expected an experiment folder, or a file in its"),
        ("nope.pt", "nope.pt does not exist; expected an experiment folder"),
        ("model.pt", "model.pt is not a checkpoint; expected an experiment folder"),
        ("empty", "no checkpoint in .*empty: it has no folder checkpoints; expected"),
    ],
)
def test_what_is_no_checkpoint_is_refused_by_what_it_is(
    tmp_path: Path, path: str, message: str
) -> None:
    (tmp_path / "model.pt").write_bytes(b"weights")
    (tmp_path / "empty").mkdir()
    for read in (load_checkpoint, verify):
        with pytest.raises(CheckpointNotFoundError, match=message):
            read(tmp_path / path)


def test_a_store_is_opened_by_the_folder_of_the_experiment_as_text_or_path(tmp_path: Path) -> None:
    train(tmp_path, 2)
    inner = tmp_path / "checkpoints"
    for place in (tmp_path, str(tmp_path), inner, str(inner)):
        store = CheckpointStore(place)
        assert store.directory == inner
        assert len(store.entries()) == 2
    store = CheckpointStore(tmp_path)
    assert store.verify(CheckpointEntry.at(str(last(tmp_path)))).cursor["step"] == 2
    with pytest.raises(TypeError, match=r"expected a CheckpointEntry: one of entries\(\)"):
        store.verify(last(tmp_path))  # type: ignore[arg-type]


def test_importing_the_package_imports_no_pytorch_and_has_all_it_names() -> None:
    code = (
        "import sys, plora_cl.checkpoint as c\n"
        "c.CheckpointStore, c.verify, c.CheckpointError\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "assert set(c.__all__) <= set(dir(c))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in plora_cl.checkpoint.__all__:
        assert getattr(plora_cl.checkpoint, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = plora_cl.checkpoint.nothing
