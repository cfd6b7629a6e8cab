"""A user's own methods: part of a run, of its identity, and of what survives a kill."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from methods.docs_example import load_example, write_example
from plora_cl.errors import MethodError
from plora_cl.methods.base import ContinualMethod
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence
from training.going_on import cut, events, newest, refusal, train
from training.test_kills import Runs
from training.test_kills import runs as runs  # a fixture


class Counter(ContinualMethod):
    """Counts the tasks it saw end."""

    name: ClassVar[str] = "counter"

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values = values or {}
        self._seen = torch.zeros(1)

    def hyperparameters(self) -> Mapping[str, Any]:
        return self._values

    def finish_task(self, model: Any, task: Any) -> tuple[()]:
        self._seen = self._seen + 1
        return ()

    def memory(self) -> Mapping[str, Mapping[str, Tensor]]:
        return {"seen": {"tasks": self._seen}}

    def load_memory(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._seen = groups["seen"]["tasks"]

    def report(self, model: Any) -> dict[str, Any]:
        return {"seen": int(self._seen)}


@pytest.fixture(scope="module")
def anchor(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ContinualMethod]:
    made = load_example(tmp_path_factory.mktemp("docs")).L2Anchor
    assert issubclass(made, ContinualMethod)
    return made


@pytest.fixture(scope="module")
def anchored(
    settings: dict[str, Any],
    anchor: Callable[..., ContinualMethod],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return the folder of a run with a method of its own, stopped inside its second task."""
    folder = tmp_path_factory.mktemp("anchored")
    cut(settings, folder, methods=[anchor(strength=3.0)])
    return folder


def test_a_method_of_ones_own_acts_and_reports_beside_the_others(
    settings: dict[str, Any], anchor: Callable[..., ContinualMethod], tmp_path: Path, whole: Path
) -> None:
    folder, _ = train(settings, tmp_path, methods=[anchor(strength=3.0), Counter()])
    results = json.loads((folder / "results" / "final_results.json").read_text())
    assert list(results["methods"]) == ["olora", "ewc", "l2_anchor", "counter"]
    assert results["methods"]["counter"]["seen"] == 3
    assert "l2_anchor" in events(folder, "step")[-1]["penalties"]
    assert results["identity"]["methods"] == {"l2_anchor": {"strength": 3.0}, "counter": {}}
    assert "methods" not in newest(whole).facts.identity


def test_each_run_of_a_trainer_begins_with_methods_as_they_were_given(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    trainer = CLTrainer(methods=[Counter()], **{**settings, "experiment_dir": str(tmp_path)})
    for _ in range(2):
        results = trainer.train_sequence(overwrite=True)
        assert results["methods"]["counter"]["seen"] == 3


def test_resuming_without_the_method_is_refused(settings: dict[str, Any], anchored: Path) -> None:
    for accept in (False, True):
        why = refusal(settings, anchored, accept=accept)
        assert "methods.l2_anchor: {'strength': 3.0} in the checkpoint, now nothing" in why
        assert "CLTrainer(methods=[...])" in why


def test_resuming_with_another_method_is_refused(
    settings: dict[str, Any], anchor: Callable[..., ContinualMethod], anchored: Path
) -> None:
    methods = [anchor(strength=3.0), Counter()]
    why = refusal(settings, anchored, accept=True, methods=methods)
    assert "methods.counter: nothing in the checkpoint, now {}" in why
    assert "l2_anchor" not in why


def test_resuming_with_other_hyperparameters_is_refused_unless_accepted(
    settings: dict[str, Any], anchor: Callable[..., ContinualMethod], anchored: Path, tmp_path: Path
) -> None:
    why = refusal(settings, anchored, methods=[anchor(strength=5.0)])
    assert "methods.l2_anchor.strength: 3.0 in the checkpoint, now 5.0" in why
    assert "--accept-changes" in why

    cut(settings, tmp_path, methods=[anchor(strength=3.0)])
    folder, shown = train(settings, tmp_path, methods=[anchor(strength=5.0)], accept=True)
    assert shown.changes("trajectory-changing") == {"methods.l2_anchor.strength"}
    (change,) = events(folder, "changed")
    assert [each["key"] for each in change["changes"]] == ["methods.l2_anchor.strength"]


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([Counter(), Counter()], "two methods have the name 'counter'"),
        ([type("Mine", (ContinualMethod,), {"name": "ewc"})()], "'ewc', which belongs to"),
        ([type("Mine", (ContinualMethod,), {"name": "a/b"})()], "'a/b'; expected letters"),
        ([type("Mine", (ContinualMethod,), {})()], "the name of Mine is None"),
        ("ewc", "'e' is a str; expected a list of ContinualMethod"),
    ],
)
def test_names_of_methods_are_checked_before_anything_is_loaded(methods: Any, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        CLTrainer(methods=methods)


def test_hyperparameters_that_are_no_json_name_the_method(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    for values in ({"rate": float("nan")}, {"names": {1, 2}}):
        with pytest.raises(MethodError, match=r"hyperparameters\(\) of counter .* plain JSON"):
            train(settings, tmp_path, methods=[Counter(values)])


@pytest.mark.fault
@pytest.mark.timeout(240)
def test_a_run_with_a_method_of_ones_own_killed_again_and_again_ends_like_one_that_was_not(
    settings: dict[str, Any], tmp_path: Path, runs: Runs
) -> None:
    write_example(tmp_path)
    output = tmp_path / "output.txt"

    def script(folder: str) -> str:
        given = {**settings, "experiment_dir": str(tmp_path / folder)}
        return (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
            "from l2_anchor import L2Anchor\n"
            "from plora_cl.training.trainer import CLTrainer\n"
            f"trainer = CLTrainer(methods=[L2Anchor(strength=3.0)], **{given!r})\n"
            "trainer.train_sequence(resume='auto')\n"
        )

    assert runs.train([], output, script=script("whole")) == 0, output.read_text()
    code, kills = -signal.SIGKILL, 0
    while code == -signal.SIGKILL:
        code = runs.train([], output, script=script("killed"), kill_at=23 + 7 * kills)
        kills += code == -signal.SIGKILL
    assert code == 0, output.read_text()
    assert kills >= 5
    assert evidence(tmp_path / "killed" / "run") == evidence(tmp_path / "whole" / "run")


def test_hyperparameters_with_keys_that_are_no_text_name_the_key(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    trainer = CLTrainer(
        methods=[Counter({"scale": {1: 0.5, "1": 2.0}})],
        **{**settings, "experiment_dir": str(tmp_path)},
    )
    with pytest.raises(MethodError, match=r"counter .* key 1 of hyperparameters/scale is an int"):
        trainer.train_sequence()


class Collector(Counter):
    """Has a state that no checkpoint can hold."""

    name: ClassVar[str] = "collector"

    def state_dict(self) -> dict[str, Any]:
        return {"labels": [{1, 2}]}


def test_a_method_whose_state_no_checkpoint_can_hold_is_named_with_the_place(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(MethodError, match=r"collector: state_dict .*'/labels/0'.*expected"):
        train(settings, tmp_path, methods=[Counter(), Collector()])
