"""Another model, other tasks: what has no place in a run, and what does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from plora_cl.checkpoint.store.pins import is_pinned, pin
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.config.precedence import resolve
from plora_cl.errors import IncompatibleCheckpointError
from plora_cl.training.trainer import CLTrainer
from training.evidence import evidence
from training.going_on import (
    DONE_0,
    copied_encoder,
    copied_tasks,
    cut,
    events,
    refusal,
    rewrite,
    train,
)


@pytest.mark.fault
def test_a_branch_whose_manifest_is_damaged_is_not_left_for_the_settings_before_it(
    settings: dict[str, Any], here: Path
) -> None:
    store = CheckpointStore(here / "run" / "checkpoints")
    left = store.entries()[-1]
    pin(store, left)
    before = left.path.read_bytes()
    train(settings, here, accept=True, learning_rate=0.02, tasks=settings["tasks"][:2])
    for entry in store.entries():
        data = bytearray(entry.path.read_bytes())
        at = data.rfind(b'"trajectory"')
        if store.manifest(entry).trajectory.branch == 1:
            data[at + 3] ^= 1
            entry.path.write_bytes(data)
    found = resolve(config=here / "run" / "config.yaml", resume="auto").settings
    assert found.learning_rate == 0.02
    for _ in range(2):
        with pytest.raises(
            IncompatibleCheckpointError, match=r"learning_rate: \S+ in the checkpoint"
        ):
            CLTrainer.from_settings(found).train_sequence(resume="auto")
    (aside,) = store.retired()
    assert aside.path.read_bytes() == before
    assert is_pinned(store, aside)


# --- structural


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"lora_r": 4}, "lora_r"),
        ({"shared": "embeddings"}, "shared"),
        ({"lora_target_modules": ["query"]}, "lora_target_modules"),
        ({"use_ewc": False}, "use_ewc"),
        ({"use_orthogonal": False}, "use_orthogonal"),
        ({"ewc_mode": "offline"}, "ewc_mode"),
        ({"batch_size": 4}, "batch_size"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps"),
        ({"max_train_examples": 20}, "tasks[1].examples"),
    ],
)
def test_what_the_state_does_not_fit_is_refused_even_if_accepted(
    settings: dict[str, Any], here: Path, change: dict[str, Any], key: str
) -> None:
    said = refusal(settings, here, accept=True, **change)
    assert re.search(rf"{re.escape(key)}: .+ in the checkpoint, now ", said)


def test_other_base_weights_are_refused(
    settings: dict[str, Any], here: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    encoder = copied_encoder(settings, tmp_path)
    weights = load_file(encoder / "model.safetensors")
    name = next(n for n in weights if n.endswith("query.weight"))
    weights[name][0, 0] += 1
    save_file(weights, encoder / "model.safetensors", {"format": "pt"})
    said = refusal(settings, here, accept=True, model_name=str(encoder))
    assert re.match(
        r"the checkpoint has no place in this run: base weights: \w+ in the checkpoint, now ", said
    )


def test_an_encoder_that_computes_something_else_with_the_same_weights_is_noticed(
    settings: dict[str, Any], here: Path, tmp_path: Path
) -> None:
    encoder = copied_encoder(settings, tmp_path)
    config = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 4}))
    said = refusal(settings, here, model_name=str(encoder))
    assert re.search(r"encoder: .+ in the checkpoint, now ", said)


def test_the_size_of_batches_may_change_between_tasks(settings: dict[str, Any], here: Path) -> None:
    start = here / "run" / "checkpoints" / DONE_0
    experiment, _ = train(settings, here, accept=True, resume=start, batch_size=4)
    assert [r["step"] for r in events(experiment, "step")] == list(range(1, 51))


# --- tasks


def test_other_texts_are_refused_and_accepted_on_demand(
    settings: dict[str, Any], here: Path, tmp_path: Path
) -> None:
    tasks = copied_tasks(settings, tmp_path / "tasks")
    rewrite(tmp_path / "tasks" / "food" / "train.jsonl", lambda lines: lines[:-4])
    rewrite(tmp_path / "tasks" / "animals" / "test.jsonl", lambda lines: lines[:-4])
    said = refusal(settings, here, tasks=tasks)
    for part in ("tasks[0].test", "tasks[2].train"):
        assert re.search(rf"{re.escape(part)}: \w+ in the checkpoint, now ", said)
    assert "tasks[1]" not in said
    experiment, listener = train(settings, here, accept=True, tasks=tasks)
    assert listener.changes("trajectory-changing") == {
        "tasks[0].test",
        "tasks[2].examples",
        "tasks[2].train",
    }
    assert len(events(experiment, "changed")) == 1


@pytest.mark.parametrize("task", ["animals", "weather"])
def test_other_classes_of_a_task_that_was_begun_are_refused(
    settings: dict[str, Any], here: Path, tmp_path: Path, task: str
) -> None:
    def third(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [*lines[:-2], *({**line, "label": "third"} for line in lines[-2:])]

    tasks = copied_tasks(settings, tmp_path / "tasks")
    for split in ("train", "validation", "test"):
        rewrite(tmp_path / "tasks" / task / f"{split}.jsonl", third)
    said = refusal(settings, here, accept=True, tasks=tasks)
    assert re.search(r"\]\.classes: .+ in the checkpoint, now ", said)


def test_learned_tasks_keep_their_order_and_stay(settings: dict[str, Any], here: Path) -> None:
    first, second, third = settings["tasks"]
    for tasks in ([second, first, third], [first]):
        said = refusal(settings, here, accept=True, tasks=tasks)
        assert said.startswith("the checkpoint has no place in this run: ")
    assert "tasks[2]: 'food' in the checkpoint, now nothing" in refusal(
        settings, here, tasks=[first, second]
    )
    experiment, _ = train(settings, here, accept=True, tasks=[first, second])
    assert len(events(experiment, "step")) == 20


@pytest.mark.parametrize("after", [0, 8])
def test_tasks_may_be_appended_to_a_run_finished_or_not(
    settings: dict[str, Any], whole: Path, tmp_path: Path, after: int
) -> None:
    two = {**settings, "tasks": settings["tasks"][:2]}
    if after:
        cut(two, tmp_path, after=after)
    else:
        train(two, tmp_path)
    experiment, listener = train(settings, tmp_path)
    assert listener.changes("harmless") == {"tasks", "tasks[2]"}
    found, expected = evidence(experiment), evidence(whole)
    different = {name for name in expected if found.get(name) != expected[name]}
    scores = {name for name in expected if name.endswith("/scores")}
    assert different == scores  # all but the score on the new task before anything was learned
    results = json.loads((experiment / "results" / "final_results.json").read_text())
    assert results["untrained_accuracy"][2] is None
    assert results["forward_transfer"] is None
