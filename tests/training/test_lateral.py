"""Runs with lateral connections: exact resume, scores, and what a checkpoint holds."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from encoders import learn_something, tiny_model, token_task
from plora_cl.checkpoint.snapshot import snapshot
from plora_cl.checkpoint.snapshot.codec import decode
from plora_cl.checkpoint.snapshot.loading import newest_usable
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.data.batches import Batch
from plora_cl.evaluation.predictor import Scorer
from plora_cl.evaluation.under_way import UnderWay
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.training.trainer import CLTrainer
from plora_cl.units import run_through
from training.evidence import evidence
from training.going_on import Listener, cut, events, newest, refusal, train

LATERAL: dict[str, Any] = {"use_lateral": True, "lateral_rank": 3}
ISOLATED = {**LATERAL, "composition": "isolated"}
CUMULATIVE = {**LATERAL, "composition": "cumulative"}


@pytest.fixture(scope="module")
def references(
    settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Return runs that were never stopped, by composition."""
    return {
        changes["composition"]: train(settings, tmp_path_factory.mktemp("whole"), **changes)[0]
        for changes in (ISOLATED, CUMULATIVE)
    }


@pytest.mark.fault
@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        *((ISOLATED, (step,)) for step in (11, 13, 20, 21, 24, 29)),
        *((CUMULATIVE, (step,)) for step in (13, 24)),
        (ISOLATED, (14, 10)),
    ],
)
def test_a_run_stopped_in_a_later_task_ends_like_one_that_was_not(
    tmp_path: Path,
    settings: dict[str, Any],
    references: dict[str, Path],
    changes: dict[str, Any],
    steps: tuple[int, ...],
) -> None:
    cut(settings, tmp_path, after=steps[0], **changes)
    for step in steps[1:]:
        with pytest.raises(KeyboardInterrupt):
            CLTrainer(
                reporter=Listener(step), **{**settings, **changes, "experiment_dir": str(tmp_path)}
            ).train_sequence(resume="auto")
    experiment, _ = train(settings, tmp_path, **changes)
    assert evidence(experiment) == evidence(references[changes["composition"]])


def test_finished_connections_are_objects_and_the_one_in_training_is_live(
    tmp_path: Path, settings: dict[str, Any], references: dict[str, Path]
) -> None:
    store = CheckpointStore(cut(settings, tmp_path, after=24, **ISOLATED) / "checkpoints")
    inside = decode(store.read(store.entries()[-1]))
    assert {name for name in inside.state if "lateral" in name} == {"model/lateral-2"}
    assert {name for name in inside.objects if "lateral" in name} == {"model/lateral-1"}
    done = newest_usable(CheckpointStore(references["isolated"] / "checkpoints"))
    assert done is not None
    assert not any("lateral" in name for name in done.snapshot.state)
    assert done.snapshot.objects["model/lateral-1"] == inside.objects["model/lateral-1"]
    for task in (1, 2):
        gate = done.objects[f"model/lateral-{task}"]["gate"]
        assert gate.shape == (1,)
        assert gate.item() != 0


def test_a_run_without_lateral_connections_has_no_component_for_them(
    stopped: Path, whole: Path
) -> None:
    for experiment in (stopped, whole):
        names = {*newest(experiment).state, *newest(experiment).objects}
        assert not any("lateral" in name for name in names)


def test_with_one_task_they_change_no_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    one = {**settings, "tasks": settings["tasks"][:1]}
    plain, _ = train(one, tmp_path / "plain")
    with_it, _ = train(one, tmp_path / "lateral", **LATERAL)
    assert evidence(with_it) == evidence(plain)


def test_the_first_task_of_several_is_learned_as_without_them(
    whole: Path, references: dict[str, Path]
) -> None:
    name = "checkpoint_task0_epoch1_batch4.pt"
    found, expected = evidence(references["isolated"]), evidence(whole)
    same = [key for key in expected if key.startswith(name)]
    assert f"{name}/random" in same
    assert [key for key in same if found[key] != expected[key]] == []
    last = "checkpoint_task2_epoch1_batch4.pt/model/head-1"
    assert found[last] != expected[last]


@pytest.mark.parametrize("change", [{"use_lateral": False}, {"lateral_rank": 4}])
def test_a_run_goes_on_with_the_connections_that_it_has(
    tmp_path: Path, settings: dict[str, Any], change: dict[str, Any]
) -> None:
    cut(settings, tmp_path, **LATERAL)
    (key,) = change
    said = refusal({**settings, **LATERAL}, tmp_path, accept=True, **change)
    assert said.startswith("state_dict size mismatch: ")
    assert f"{key}: " in said


def test_a_checkpoint_from_before_there_was_the_setting_is_gone_on_from(
    tmp_path: Path, settings: dict[str, Any], whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_then(recorded: dict[str, Any], _: str) -> dict[str, Any]:
        return {name: value for name, value in recorded.items() if name != "lateral_rank"}

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "json_copy", as_then)
        cut(settings, tmp_path)
    assert "lateral_rank" not in newest(tmp_path / "run").facts.settings
    experiment, listener = train(settings, tmp_path)
    assert not listener.changes("structural")
    assert not events(experiment, "changed")
    found, expected = evidence(experiment), evidence(whole)
    assert {name for name in expected if found[name] != expected[name]} == set()


def test_earlier_tasks_are_not_measured_again_where_nothing_is_shared(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    _, listener = train(settings, tmp_path, shared="none", use_ewc=False, **ISOLATED)
    assert len([what for what in listener.activities if what.startswith("evaluation")]) == 3


def scorer_of(model: ContinualClassifier) -> Scorer:
    return Scorer(model, batch_size=4, autocast=nullcontext, precision="fp32", under_way=UnderWay())


@pytest.mark.parametrize("composition", ["isolated", "cumulative"])
def test_a_score_depends_on_the_connection_and_on_every_earlier_adapter(
    tmp_path: Path, composition: str
) -> None:
    model = tiny_model(tasks=(2, 2, 2, 2), composition=composition, lateral_rank=3)
    scorer, task = scorer_of(model), token_task(tmp_path, 2)
    seen = {scorer.dependencies(task, "base")}
    read = ["lateral-2", "adapter-0", "adapter-1", "adapter-2"]
    for part in read:
        for tensor in model.part(part).state_dict().values():
            with torch.no_grad():
                tensor.add_(1)
            seen.add(scorer.dependencies(task, "base"))
    assert len(seen) == 1 + sum(len(model.part(part).state_dict()) for part in read)
    for part in ("lateral-1", "lateral-3"):
        with torch.no_grad():
            model.part(part).state_dict()["gate"].add_(1)
    assert scorer.dependencies(task, "base") in seen


def test_scores_are_of_predictions_with_the_connection(tmp_path: Path) -> None:
    model = tiny_model(tasks=(2, 2), lateral_rank=3)
    learn_something(model)
    task = token_task(tmp_path, 1)
    (batch,) = task.test.in_order(100)
    assert isinstance(batch, Batch)
    found = []
    for gate in (0.0, 50.0, -50.0):
        with torch.no_grad():
            model.part("lateral-1").state_dict()["gate"].fill_(gate)
            expected = model.eval()(batch.input_ids, batch.attention_mask, 1).argmax(-1)
        predicted, _ = run_through(scorer_of(model).predict(task, task.test, "test", key="now"))
        assert predicted.tolist() == expected.tolist()
        found.append(predicted.tolist())
    assert found[1] != found[2]
