"""Runs that go back to an earlier checkpoint, and what becomes of the future they leave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from plora_cl.checkpoint.snapshot.codec import decode
from plora_cl.checkpoint.store.branches import line_of
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.verification import verify
from plora_cl.config.precedence import dump, resolve
from plora_cl.config.record import record
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence
from training.going_on import Listener, cut, events, train

EARLY = "checkpoint_task1_epoch0_batch1.pt"  # of step 12
MIDDLE = "checkpoint_task1_epoch0_batch4.pt"  # of step 15
LATE = "checkpoint_task1_epoch1_batch2.pt"  # of step 18
OTHER: dict[str, Any] = {"learning_rate": 0.02}


@pytest.fixture(scope="module")
def stopped_late(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was stopped in its second task, where it has three checkpoints."""
    return cut(settings, tmp_path_factory.mktemp("late"), after=19)


@pytest.fixture
def late(stopped_late: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped_late, tmp_path / "here" / "run"))


def names(experiment: Path) -> list[str]:
    return [e.path.name for e in CheckpointStore(experiment / "checkpoints").entries()]


def retired(experiment: Path) -> list[str]:
    return [e.path.name for e in CheckpointStore(experiment / "checkpoints").retired()]


def settings_of(path: Path) -> dict[str, Any]:
    return dict(CheckpointStore(path.parent).manifest(CheckpointEntry.at(path)).settings)


def go_on(
    settings: dict[str, Any], folder: Path, *, steps: int = 0, accept: bool = False, **changes: Any
) -> Listener:
    """Go on in ``folder``, to the end or for some steps; return what was shown."""
    listener, resume = Listener(steps), changes.pop("resume", "auto")
    trainer = CLTrainer(reporter=listener, **{**settings, "experiment_dir": str(folder), **changes})
    if steps:
        with pytest.raises(KeyboardInterrupt):
            trainer.train_sequence(resume=resume, accept_changes=accept)
    else:
        trainer.train_sequence(resume=resume, accept_changes=accept)
    return listener


def afresh(settings: dict[str, Any], stopped_late: Path, folder: Path, name: str) -> Path:
    """Return the run that goes on from ``name`` where nothing ever lay ahead of it."""
    experiment = Path(shutil.copytree(stopped_late, folder / "run"))
    at = CheckpointEntry.at(experiment / name)
    for entry in CheckpointStore(experiment / "checkpoints").entries():
        if entry > at:
            entry.path.unlink()
    train(settings, folder, accept=True, **OTHER)
    return experiment


def differing(one: Path, other: Path) -> set[str]:
    found, expected = evidence(one), evidence(other)
    assert {"run_log", "accuracy", "checkpoint_task2_epoch1_batch4.pt/optimizer"} <= found.keys()
    return {
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    }


def test_a_rewind_with_other_settings_is_what_auto_goes_on_with(
    settings: dict[str, Any], late: Path, stopped_late: Path, tmp_path: Path
) -> None:
    source = str(late / "checkpoints" / EARLY)
    go_on(settings, late.parent, steps=1, resume=source, accept=True, **OTHER)
    assert names(late)[-1] == EARLY
    assert settings_of(late / "checkpoints" / EARLY)["learning_rate"] == 0.02
    assert retired(late) == [f"{name}.branch0" for name in (EARLY, MIDDLE, LATE)]
    listener = go_on({**settings, **OTHER}, late.parent)
    assert not listener.changes("trajectory-changing")
    assert [r["step"] for r in events(late, "step")] == list(range(1, 31))
    reference = afresh(settings, stopped_late, tmp_path / "reference", EARLY)
    assert differing(late, reference) == set()


def test_the_future_that_was_left_can_be_gone_on_from(
    settings: dict[str, Any], late: Path, whole: Path
) -> None:
    source = str(late / "checkpoints" / EARLY)
    go_on(settings, late.parent, steps=5, resume=source, accept=True, **OTHER)
    go_on(settings, late.parent, resume=str(late / "checkpoints" / f"{LATE}.branch0"))
    assert [r["step"] for r in events(late, "step")] == list(range(1, 31))
    found, expected = evidence(late), evidence(whole)
    assert {name for name in expected if found.get(name) != expected[name]} == set()
    assert f"{MIDDLE}.branch1" in retired(late)


def test_a_rewind_of_a_rewind_leaves_both_futures_behind(
    settings: dict[str, Any], late: Path, stopped_late: Path, tmp_path: Path
) -> None:
    checkpoints = late / "checkpoints"
    middle, early = str(checkpoints / MIDDLE), str(checkpoints / EARLY)
    go_on(settings, late.parent, steps=4, resume=middle, accept=True, weight_decay=0.5)
    go_on(settings, late.parent, steps=1, resume=early, accept=True, **OTHER)
    assert retired(late) == [
        f"{EARLY}.branch0",
        f"{MIDDLE}.branch0",
        f"{MIDDLE}.branch1",
        f"{LATE}.branch0",
        f"{LATE}.branch1",
    ]
    go_on({**settings, **OTHER}, late.parent)
    reference = afresh(settings, stopped_late, tmp_path / "reference", EARLY)
    assert differing(late, reference) == set()


def test_a_rewind_across_tasks_retires_the_later_task(
    settings: dict[str, Any], late: Path, stopped_late: Path, tmp_path: Path
) -> None:
    first = names(late)[0]
    source = str(late / "checkpoints" / first)
    go_on(settings, late.parent, steps=2, resume=source, accept=True, **OTHER)
    assert names(late) == [first]
    go_on({**settings, **OTHER}, late.parent)
    reference = afresh(settings, stopped_late, tmp_path / "reference", first)
    assert differing(late, reference) == set()


def test_going_back_without_a_change_retires_nothing_and_ends_the_same(
    settings: dict[str, Any], late: Path, whole: Path
) -> None:
    source = str(late / "checkpoints" / EARLY)
    before = names(late)
    go_on(settings, late.parent, steps=1, resume=source, accept=True)  # nothing differs
    assert (names(late), retired(late)) == (before, [])
    go_on(settings, late.parent)
    assert evidence(late) == evidence(whole)


def test_what_a_change_was_made_from_stays(settings: dict[str, Any], late: Path) -> None:
    before = (late / "checkpoints" / LATE).read_bytes()
    go_on(settings, late.parent, accept=True, **OTHER)
    assert (late / "checkpoints" / f"{LATE}.branch0").read_bytes() == before
    assert LATE not in names(late)


def test_objects_of_what_was_retired_stay(settings: dict[str, Any], late: Path) -> None:
    source = str(late / "checkpoints" / EARLY)
    go_on(settings, late.parent, resume=source, accept=True, **OTHER)
    store = CheckpointStore(late / "checkpoints")
    assert len(store.retired()) == 3
    for entry in store.retired():
        for ref in decode(store.read(entry)).objects.values():
            store.objects.verify(ref)


def test_a_branch_holds_its_history(settings: dict[str, Any], late: Path) -> None:
    store = CheckpointStore(late / "checkpoints")
    left = store.manifest(store.entries()[-1]).trajectory
    go_on(settings, late.parent, steps=1, accept=True, **OTHER)
    trajectory = store.manifest(store.entries()[-1]).trajectory
    (departure,) = trajectory.history
    assert (trajectory.branch, departure.branch) == (1, 0)
    assert trajectory.id != left.id == departure.trajectory is not None
    assert (departure.checkpoint, departure.step, departure.task) == (LATE, 18, 1)
    change = {
        "key": "learning_rate",
        "before": "0.01",
        "now": "0.02",
        "impact": "trajectory-changing",
    }
    assert departure.changes == (change,)


def test_equal_runs_have_equal_trajectories_and_so_have_equal_branches(
    settings: dict[str, Any], late: Path, whole: Path, stopped: Path, tmp_path: Path
) -> None:
    def trajectory(experiment: Path) -> Any:
        line = line_of(CheckpointStore(experiment / "checkpoints"))
        assert line.head is not None
        return line.head.id

    assert trajectory(whole) == trajectory(late) == trajectory(stopped)
    twin = shutil.copytree(stopped, tmp_path / "twin" / "run")
    source = shutil.copytree(stopped, tmp_path / "one" / "run")
    for folder in (twin, source):
        go_on(settings, folder.parent, steps=1, accept=True, **OTHER)
    assert trajectory(twin) == trajectory(source) != trajectory(stopped)
    cut({**settings, **OTHER}, tmp_path / "other")
    assert trajectory(tmp_path / "other" / "run") not in {trajectory(twin), trajectory(late)}


def test_tasks_appended_otherwise_than_before_make_a_branch(
    settings: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    two, other = settings["tasks"][:2], [*settings["tasks"][:2], settings["tasks"][0]]
    experiment, _ = train({**settings, "tasks": two}, tmp_path)
    done = names(experiment)[-1]
    go_on(settings, tmp_path, steps=5)
    assert retired(experiment) == []
    named = [*two, {"name": "again", "path": str(other[2])}]
    source = str(experiment / "checkpoints" / done)
    go_on({**settings, "tasks": named}, tmp_path, steps=1, resume=source)
    assert retired(experiment)[0] == f"{done}.branch0"
    go_on({**settings, "tasks": named}, tmp_path)
    results = json.loads((experiment / "results" / "final_results.json").read_text())
    assert [task["name"] for task in results["tasks"]] == ["animals", "weather", "again"]


def test_checkpoints_of_another_folder_begin_a_branch_there(
    settings: dict[str, Any], late: Path, whole: Path, tmp_path: Path
) -> None:
    source = str(late / "checkpoints" / EARLY)
    folder = tmp_path / "elsewhere"
    go_on(settings, folder, resume=source)
    found, expected = evidence(folder / "run"), evidence(whole)
    both = found.keys() & expected.keys() - {"run_log"}
    assert {name for name in both if found[name] != expected[name]} == set()


def test_a_pin_goes_with_the_checkpoint_that_is_retired(
    settings: dict[str, Any], late: Path
) -> None:
    from plora_cl.cli.checkpoints.main import main

    assert main(["pin", f"{late}@{EARLY}"]) == 0
    assert main(["pin", f"{late}@{LATE}"]) == 0
    go_on(settings, late.parent, resume=str(late / "checkpoints" / EARLY), accept=True, **OTHER)
    pins = {path.name for path in (late / "checkpoints").glob("*.pin")}
    assert pins == {f"{EARLY}.branch0.pin", f"{LATE}.branch0.pin"}
    assert EARLY not in names(late)


# --- the command that is printed, in every window


class KilledError(BaseException):
    """The process is gone."""


def killed(*_: object, **__: object) -> None:
    raise KilledError


@pytest.mark.parametrize(
    ("where", "is_new"),
    [
        ("plora_cl.evaluation.runlog.RunLog.append", False),
        ("plora_cl.training.run.run.Run.begin_branch", False),
        ("plora_cl.checkpoint.store.store.CheckpointStore.commit", False),
        ("plora_cl.checkpoint.snapshot.committer.retire", True),
        ("plora_cl.checkpoint.snapshot.committer.rotate", True),
        ("plora_cl.training.finishing.write_output", True),
        ("plora_cl.training.finishing._scores_at_the_end", True),
    ],
)
def test_the_printed_command_goes_on_with_all_of_one_branch(
    settings: dict[str, Any],
    late: Path,
    whole: Path,
    stopped_late: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    is_new: bool,
) -> None:
    in_place = {**settings, "async_checkpoint": False}
    trainer = CLTrainer(**{**in_place, "experiment_dir": str(late.parent), **OTHER})
    (late / "config.yaml").write_bytes(
        record(dump(trainer.settings.model_copy(update={"learning_rate": 0.01})), branch=0)
    )
    with monkeypatch.context() as patch:
        patch.setattr(where, killed)
        with pytest.raises(KilledError):
            trainer.train_sequence(resume=str(late / "checkpoints" / EARLY), accept_changes=True)
    found = resolve(config=late / "config.yaml", resume="auto").settings
    assert found.learning_rate == (0.02 if is_new else 0.01)
    CLTrainer.from_settings(found).train_sequence(resume="auto")
    reference = afresh(settings, stopped_late, tmp_path / "reference", EARLY) if is_new else whole
    assert differing(late, reference) == set()
    assert not list(late.rglob(".*.partial"))


def test_a_run_that_lost_its_record_goes_on_with_its_own_settings(
    settings: dict[str, Any], late: Path, whole: Path
) -> None:
    (late / "config.yaml").unlink()
    found = resolve(config=late / "config.yaml", resume="auto").settings
    assert found == CLTrainer(**{**settings, "experiment_dir": str(late.parent)}).settings
    CLTrainer.from_settings(found).train_sequence(resume="auto")
    assert evidence(late) == evidence(whole)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("what", ["nothing", "newest", "base", "abandoned", "newest and base"])
def test_verify_names_what_resuming_takes(
    settings: dict[str, Any], late: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(late / "checkpoints")
    newest = store.entries()[-1]
    if "base" in what:
        damage(store.objects.path(store.manifest(newest).objects["model/base"]))
    if "newest" in what:
        damage(newest.path)
    if what == "abandoned":
        with monkeypatch.context() as patch:
            patch.setattr("plora_cl.checkpoint.snapshot.committer.retire", killed)
            trainer = CLTrainer(
                **{
                    **settings,
                    "experiment_dir": str(late.parent),
                    **OTHER,
                    "async_checkpoint": False,
                }
            )
            with pytest.raises(KilledError):
                trainer.train_sequence(resume=str(store.directory / EARLY), accept_changes=True)
    expected = verify(store).resumes_from
    assert expected is not None
    now = {**settings, **OTHER} if what == "abandoned" else settings
    assert CLTrainer(**{**now, "experiment_dir": str(late.parent)}).get_latest_checkpoint() == (
        expected.path
    )
    listener = go_on(now, late.parent, steps=1)
    assert f"Loading checkpoint from {expected.path}..." in listener.messages
    assert (expected.path.name == EARLY) == (what == "abandoned")
