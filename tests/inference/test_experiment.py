from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plora_cl
import tiny
from plora_cl import Experiment, load_experiment
from plora_cl.checkpoint.reading import load_checkpoint
from plora_cl.errors import (
    CheckpointNotFoundError,
    DataError,
    IncompatibleCheckpointError,
    ModelError,
)
from plora_cl.pretrained.files import from_files
from plora_cl.state_digest import state_digest

NAMES = list(tiny.TOPICS)


def rows(task: str, folder: Path) -> list[dict[str, str]]:
    """Return the test split of a task, which is the same wherever it is written."""
    path = tiny.make_task(folder / task, tiny.TOPICS[task], train=40, test=20) / "test.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("texts")
    return {name: [row["text"] for row in rows(name, folder)] for name in NAMES}


@pytest.fixture(scope="module")
def experiment(folder: Path) -> Experiment:
    return load_experiment(folder)


def test_predictions_have_the_accuracy_that_training_measured(
    experiment: Experiment, tmp_path: Path
) -> None:
    results = json.loads((experiment.folder / "results/final_results.json").read_text())
    for column, name in enumerate(NAMES):
        of_task = rows(name, tmp_path)
        labels = experiment.predict([row["text"] for row in of_task], name).labels
        right = np.mean([row["label"] == label for row, label in zip(of_task, labels, strict=True)])
        assert right == results["accuracy_matrix"][-1][column]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"composition": "cumulative", "use_orthogonal": True},
        {"shared": "layernorm"},
        {"shared": "lora"},
        {"use_lateral": True},
        {"task_adapters": False, "shared": "all"},
        {"joint": True, "use_ewc": False},
        {"pooling": "mean"},
    ],
    ids=str,
)
def test_logits_are_those_of_training_and_of_each_text_on_its_own(
    learn: Callable[..., Path], texts: dict[str, list[str]], changes: dict[str, Any]
) -> None:
    """A mixed batch gives each text its own adapter and its own head."""
    experiment = load_experiment(learn(**changes, epochs=2))
    model = experiment._loaded.classifier
    flat = [(name, text) for name in NAMES for text in texts[name][:6]]
    np.random.default_rng(0).shuffle(flat)
    mixed = experiment.predict([t for _, t in flat], [n for n, _ in flat])
    for (name, text), prediction in zip(flat, mixed, strict=True):
        tokens = experiment._loaded.tokenizer(text, truncation=True, max_length=16)
        ids, mask = (torch.tensor([tokens[key]]) for key in ("input_ids", "attention_mask"))
        with torch.no_grad():
            expected = model(ids, mask, NAMES.index(name)).softmax(-1)[0]
        classes = experiment.task(name).classes
        assert prediction.task == name
        assert tuple(prediction.probabilities) == classes
        np.testing.assert_allclose([*prediction.probabilities.values()], expected, rtol=1e-5)
        alone = experiment.predict_proba([text], name)[0]
        np.testing.assert_allclose([*prediction.probabilities.values()], alone, rtol=1e-5)


def test_a_reload_gives_the_same_bits(experiment: Experiment, texts: dict[str, list[str]]) -> None:
    again = load_experiment(experiment.folder)
    for name in NAMES:
        first = experiment.logits(texts[name], name)
        assert first.tobytes() == again.logits(texts[name], name).tobytes()
        assert first.shape == (20, len(tiny.TOPICS[name]))


def test_an_earlier_checkpoint_predicts_what_it_did_then(
    experiment: Experiment, tmp_path: Path
) -> None:
    end_of_first = max((experiment.folder / "checkpoints").glob("checkpoint_task0_*"))
    then = experiment.at(end_of_first.name)
    assert [task.name for task in then.tasks] == ["animals"]
    of_task = rows("animals", tmp_path)
    labels = then.predict([row["text"] for row in of_task], "animals").labels
    right = np.mean([row["label"] == label for row, label in zip(of_task, labels, strict=True)])
    assert right == experiment.scores().accuracy.loc["animals", "animals"]
    with pytest.raises(ModelError, match=r"task 'food' .* \(the run learns it later\)"):
        then.predict(["a day"], "food")


def test_the_task_is_inferred_and_doubt_is_marked(
    experiment: Experiment, texts: dict[str, list[str]]
) -> None:
    everything = [text for name in NAMES for text in texts[name]]
    found = experiment.predict(everything).to_frame()
    of_name = [name for name in NAMES for _ in texts[name]]
    routed = experiment.scores().routed_accuracy.loc["food"]
    assert (found.task == of_name).mean() > 0.5
    assert found.abstained.any()
    assert not found.abstained.all()
    assert found.task_probability.between(0.3, 1).all()
    assert routed.notna().all()


def test_a_run_without_a_router_needs_the_task(learn: Callable[..., Path]) -> None:
    experiment = load_experiment(learn(use_router=False, epochs=1))
    assert not experiment.infers_tasks
    with pytest.raises(ModelError, match=r"has no router .* name the task"):
        experiment.predict(["a day"])
    assert len(experiment.predict(["a day"], "food")) == 1


def test_what_is_not_there_is_an_error_that_names_it(experiment: Experiment) -> None:
    with pytest.raises(ModelError, match=r"'foods' is not in .*; did you mean .food."):
        experiment.predict(["a day"], "foods")
    with pytest.raises(ValueError, match="1 tasks for 2 texts"):
        experiment.predict(["a", "b"], ["food"])
    with pytest.raises(TypeError, match="texts is a str; expected a list"):
        experiment.predict("a day", "food")
    with pytest.raises(DataError, match="text 2 is a float; expected a str"):
        experiment.predict(["a day", float("nan")], "food")  # type: ignore[list-item]
    with pytest.raises(CheckpointNotFoundError, match=r"no checkpoint 'x\.pt'; see: plora-cl"):
        experiment.at("x.pt")
    with pytest.raises(CheckpointNotFoundError, match="does not exist; expected an experiment"):
        load_experiment(experiment.folder / "nowhere")


def test_nothing_is_drawn_from_the_generators_of_the_process(folder: Path) -> None:
    before = state_digest(plora_cl.state.RandomState().state_dict())
    load_experiment(folder).predict(["a day", "wet cloud"])
    assert state_digest(plora_cl.state.RandomState().state_dict()) == before


def test_there_is_one_base_in_memory(experiment: Experiment) -> None:
    model = experiment._loaded.classifier
    parts = model.parts()
    storages = {t.data_ptr() for part in parts.values() for t in part.state_dict().values()}
    assert storages >= {p.data_ptr() for p in model.parameters()}
    assert len([name for name in parts if name == "base"]) == 1
    one = sum(t.numel() for t in parts["adapter-0"].state_dict().values())
    heads = sum(p.numel() for p in model.heads.parameters())
    base = sum(p.numel() for n in ("base", "shared") for p in parts[n].state_dict().values())
    held = sum(t.numel() for t in [*model.parameters(), *model.buffers()])
    assert held == base + len(NAMES) * one + heads


def test_no_text_has_predictions_of_no_shape(experiment: Experiment) -> None:
    assert len(experiment.predict([])) == 0
    assert len(experiment.predict([]).to_frame()) == 0
    assert experiment.predict_proba([], "food").shape == (0, 3)


def test_files_of_a_hostile_name_are_refused(folder: Path) -> None:
    files = dict(load_checkpoint(folder).objects["encoder/files"])
    assert {"config.json", "tokenizer.json"} <= files.keys()
    for name in ("../config.json", "/etc/x.json", "pytorch_model.bin", "modeling.py"):
        with pytest.raises(IncompatibleCheckpointError, match="model file"):
            from_files({**files, name: files["config.json"]})


def test_predictions_are_a_sequence(experiment: Experiment) -> None:
    found = experiment.predict(["cat meow", "dog bark", "a day"], "animals")
    assert found[:2].labels == found.labels[:2]
    assert found[0].probability == max(found[0].probabilities.values())
    assert found[0].task_probability == 1.0
    assert not found[0].abstained
    assert json.loads(json.dumps(found[0].to_plain()))["task"] == "animals"


def test_another_checkpoint_shares_the_base_and_keeps_its_own_rest(folder: Path) -> None:
    last = load_experiment(folder)
    first = max((folder / "checkpoints").glob("checkpoint_task0_*"))
    then, alone = last.at(first), load_experiment(folder, first)
    bases = [one._loaded.classifier.part("base").state_dict() for one in (last, then)]
    assert {n: t.data_ptr() for n, t in bases[0].items()} == {
        n: t.data_ptr() for n, t in bases[1].items()
    }
    texts = ["cat meow paw", "dog bark bone"]
    assert then.logits(texts, "animals").tobytes() == alone.logits(texts, "animals").tobytes()
    again = load_experiment(folder)
    for name in NAMES:
        assert last.logits(texts, name).tobytes() == again.logits(texts, name).tobytes()
    assert last.newest().checkpoint == last.checkpoint


def test_named_and_inferred_tasks_share_a_call(experiment: Experiment) -> None:
    texts = ["cat meow paw", "wet cloud drops", "oven bake"]
    found = experiment.predict(texts, [None, "food", None])
    alone = experiment.predict(texts[1:2], "food")[0]
    assert (found[1].task, found[1].label) == ("food", alone.label)
    assert found[1].probability == pytest.approx(alone.probability, rel=1e-5)
    assert [found[0].task, found[2].task] == [p.task for p in experiment.predict(texts[::2])]
