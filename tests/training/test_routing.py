from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders import learn_something, tiny_model, token_task
from plora_cl.checkpoint.snapshot.staging import separate_copy
from plora_cl.evaluation.routing.router import Router
from plora_cl.evaluation.under_way import UnderWay
from plora_cl.state import RandomState
from plora_cl.state_digest import state_digest
from plora_cl.units import Unit, run_through
from training.evidence import evidence
from training.going_on import events, train
from training.test_resume_sweep import Fuse, PowerCut
from training.test_resume_sweep import train as go


def results_of(experiment: Path) -> dict[str, Any]:
    return json.loads((experiment / "results" / "final_results.json").read_text())


def router_for(model: Any, under_way: UnderWay | None = None) -> Router:
    under_way = UnderWay() if under_way is None else under_way
    return Router(model, examples=10, abstain=0.05, batch_size=5, seed=0, under_way=under_way)


def test_the_results_hold_both_scores_and_where_texts_went(whole: Path) -> None:
    results = results_of(whole)
    assert [sum(row) for row in results["confusion"]] == [20, 20, 20]
    assert [len(row) for row in results["confusion"]] == [3, 3, 3]
    for kind in ("oracle", "routed"):
        assert [task["name"] for task in results[kind]["tasks"]] == ["animals", "weather", "food"]
        for score in ("accuracy", "f1"):
            mean = np.mean([task[score] for task in results[kind]["tasks"]])
            assert results[kind][f"average_{score}"] == pytest.approx(mean)
    assert results["oracle"]["average_accuracy"] == results["average_accuracy"]
    for score in ("average_accuracy", "average_f1"):
        gap = results["oracle"][score] - results["routed"][score]
        assert results["gap"][score] == pytest.approx(gap)
    matrix = results["routed_accuracy_matrix"]
    assert matrix[2] == [task["accuracy"] for task in results["routed"]["tasks"]]
    assert [[cell is None for cell in row] for row in matrix] == [
        [False, True, True],
        [False, False, True],
        [False, False, False],
    ]
    for row, task in zip(results["confusion"], results["routed"]["tasks"], strict=True):
        assert task["texts"] == sum(row) >= task["abstained"]


def test_with_one_task_learned_both_scores_are_the_same(whole: Path) -> None:
    results = results_of(whole)
    assert results["routed_accuracy_matrix"][0][0] == results["accuracy_matrix"][0][0]
    assert results["routed_f1_matrix"][0][0] == results["f1_matrix"][0][0]
    assert events(whole, "routing")[0]["chosen"] == [20]


def test_the_run_log_has_a_routing_for_each_task_and_row_once(whole: Path) -> None:
    found = [(event["task"], event["on"]) for event in events(whole, "routing")]
    assert found == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]


def test_the_router_changes_nothing_else(
    whole: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    without, _ = train(settings, tmp_path, use_router=False)
    changed = ("/scores", "run_log", "/router/")
    one, other = (
        {key: value for key, value in evidence(run).items() if not any(c in key for c in changed)}
        for run in (whole, without)
    )
    assert one == other
    assert any(key.endswith("/router/task-2") for key in evidence(whole))
    results = results_of(without)
    assert results["routed"]["average_accuracy"] is None
    assert results["oracle"]["average_accuracy"] == results["average_accuracy"]
    assert results["confusion"] == [None, None, None]
    assert events(without, "routing") == []


def test_a_router_switched_on_later_learns_what_it_missed(
    whole: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    fuse = Fuse(step=18)
    with pytest.raises(PowerCut):
        go(tmp_path, {**settings, "use_router": False}, fuse)
    late, _ = train(settings, tmp_path, accept=True)
    assert results_of(late)["routed"] == results_of(whole)["routed"]
    assert results_of(late)["routed_accuracy_matrix"][0] == [None, None, None]


def test_shared_values_that_moved_do_not_move_the_features(tmp_path: Path) -> None:
    task = token_task(tmp_path, 0)
    found = []
    for moved in (False, True):
        model = tiny_model(shared="layernorm|query")  # some of it is wrapped by adapters
        router = router_for(model)
        model.grow(2)
        if moved:
            learn_something(model)
            model.grow(2)
            learn_something(model)
        run_through(router.learn([task]))
        found.append(state_digest(router.memory()))
    assert found[0] == found[1]


def test_learning_disturbs_neither_weights_nor_modes_nor_generators(tmp_path: Path) -> None:
    model = tiny_model(shared="layernorm", tasks=[2, 2])
    router = router_for(model)
    learn_something(model)
    for training in (True, False):
        model.train(training)
        versions = {name: p._version for name, p in model.named_parameters()}
        weights = state_digest(separate_copy(model.state_dict()))
        before = state_digest(RandomState.seeded(5).state_dict())
        router.load_memory({})
        run_through(router.learn([token_task(tmp_path, 0)]))
        run_through(router.route(token_task(tmp_path, 0), 1))
        router.forget()
        assert state_digest(RandomState().state_dict()) == before
        assert state_digest(dict(model.state_dict())) == weights
        assert {name: p._version for name, p in model.named_parameters()} == versions
        assert model.training is training


def test_what_a_checkpoint_holds_makes_a_twin_that_routes_alike(tmp_path: Path) -> None:
    tasks = [token_task(tmp_path, index) for index in range(3)]
    router = router_for(tiny_model(shared="layernorm"))
    run_through(router.learn(tasks[:2]))
    model = tiny_model(shared="layernorm")
    with torch.no_grad():
        for parameter in model.shared_parameters().values():
            parameter.add_(1.0)  # an encoder whose shared values were others when it was loaded
    twin = router_for(model)
    twin.load_memory(dict(reversed(router.memory().items())))
    for each in (router, twin):
        run_through(each.learn(tasks))
    assert state_digest(twin.memory()) == state_digest(router.memory())
    for task in tasks:
        routes = [run_through(each.route(task, 3)) for each in (router, twin)]
        for one, other in zip(*routes, strict=True):
            assert one.tolist() == other.tolist()


def test_texts_are_encoded_once_whatever_is_learned_in_between(tmp_path: Path) -> None:
    tasks, model = [token_task(tmp_path, index) for index in range(2)], tiny_model()
    encoded: list[int] = []
    model.encoder.register_forward_hook(lambda *_: encoded.append(1))
    router = router_for(model)
    run_through(router.learn(tasks[:1]))
    run_through(router.route(tasks[0], 1))
    router.forget()
    encoded.clear()
    units = list(router.learn(tasks))
    assert {what for what, _, _ in units} == {"router: learning task 1"}
    assert len(encoded) == len(units) == 2
    run_through(router.route(tasks[0], 2))
    assert len(encoded) == 2


@pytest.mark.parametrize("seen", [1, 2, 3])
def test_it_goes_on_after_any_batch_in_another_process(tmp_path: Path, seen: int) -> None:
    tasks, under_way = [token_task(tmp_path, index) for index in range(2)], UnderWay()
    whole = router_for(tiny_model())
    run_through(whole.learn(tasks))
    expected = run_through(whole.route(tasks[1], 2))
    router = router_for(tiny_model(), under_way)
    units = list(itertools.islice(router.learn(tasks), seen))
    memory, state = router.memory(), separate_copy(under_way.state_dict())
    under_way = UnderWay()
    under_way.load_state_dict(state)
    router = router_for(tiny_model(), under_way)
    router.load_memory(memory)
    units += list(router.learn(tasks))
    assert len(units) == 4
    assert state_digest(router.memory()) == state_digest(whole.memory())
    assert not under_way
    units = list(itertools.islice(router.route(tasks[1], 2), seen))
    twin = UnderWay()
    twin.load_state_dict(separate_copy(under_way.state_dict()))
    again = router_for(tiny_model(), twin)
    again.load_memory(router.memory())
    found = run_through(again.route(tasks[1], 2))
    assert [values.tolist() for values in found] == [values.tolist() for values in expected]
    again.forget()
    assert not twin


class RouterFuse(Fuse):
    """Cuts the power at the n-th batch of the router."""

    def activity(self, unit: Unit, /) -> None:
        if unit.what.startswith("router"):
            super().activity(unit)


@pytest.fixture(scope="module")
def reference(
    settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any], int]:
    counter = RouterFuse()
    small = {**settings, "eval_batch_size": 8}
    folder = go(tmp_path_factory.mktemp("reference"), small, counter)
    return evidence(folder), without_time(folder), counter.activities


def without_time(experiment: Path) -> dict[str, Any]:
    return {k: v for k, v in results_of(experiment).items() if k != "wall_clock_seconds"}


@pytest.mark.fault
@pytest.mark.parametrize("share", [0, 0.2, 0.4, 0.6, 0.8, 0.99])
def test_a_run_stopped_inside_the_router_ends_like_one_that_was_not(
    tmp_path: Path,
    settings: dict[str, Any],
    reference: tuple[dict[str, Any], dict[str, Any], int],
    share: float,
) -> None:
    expected, results, activities = reference
    small = {**settings, "eval_batch_size": 8}
    with pytest.raises(PowerCut):
        go(tmp_path, small, RouterFuse(activity=1 + int(share * activities)))
    experiment = go(tmp_path, small)
    assert evidence(experiment) == expected
    assert without_time(experiment) == results
