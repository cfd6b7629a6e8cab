"""What the generator of replay is tuned on, what comes of it, and where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from encoders import token_task
from generators import ScriptedGenerator, numbers
from methods.test_replay import model_of, prepared
from plora_cl.data.split import Split
from plora_cl.data.task import Task
from plora_cl.data.tokens.token_file import TokenFile, TokenFileWriter
from plora_cl.errors import IncompatibleCheckpointError, MethodError
from plora_cl.generation.lora_tuning import TuningPlan
from plora_cl.generation.prompts import FOR_BASE_MODELS, Prompts
from plora_cl.methods.replay.generator_tuning import tuning_examples
from plora_cl.methods.replay.method import GenerativeReplay

PLAN = TuningPlan(examples=8, epochs=2, batch_size=4, learning_rate=1e-2, r=2)


def replay(generator: ScriptedGenerator, **changes: Any) -> GenerativeReplay:
    options: dict[str, Any] = {"tuning": PLAN, "filtered": False, "seed": 3, **changes}
    return GenerativeReplay(
        generator=generator, encode=numbers, pad_token_id=1, ratio=1.0, batch_size=4, **options
    )


def empty_texts(folder: Path) -> Task:
    with TokenFileWriter(folder / "empty.arrow") as writer:
        writer.append("train", [[2, 3]] * 2, [0, 1], [" \n", ""])
    split = Split(TokenFile(folder / "empty.arrow"), task=0, pad_token_id=1)
    return Task(0, "empty", ("a", "b"), split, split, split, digest="empty", source="empty")


def test_texts_come_in_one_line_with_the_prompts_of_their_class_in_turn() -> None:
    prompts = Prompts("news", ("World", "Arts"), ("1 {label}", "2 {label}", "3 {label}"))
    texts = ["a\n\nb", " c ", "", "\n", "d", "e"]
    examples = tuning_examples(texts, [0, 1, 0, 1, 0, 1], prompts)
    assert examples == [
        ("a b", ("1 World", "2 World", "3 World")),
        ("c", ("1 Arts", "2 Arts", "3 Arts")),
        ("d", ("2 World", "3 World", "1 World")),
        ("e", ("2 Arts", "3 Arts", "1 Arts")),
    ]


def test_it_is_tuned_on_a_stratified_sample_after_the_prompts_that_replay_uses(
    tmp_path: Path,
) -> None:
    generator = ScriptedGenerator()
    method, task = replay(generator), token_task(tmp_path, 0)
    prepared(method, model_of(2), tmp_path)
    (examples,) = generator.tuned_on
    assert len(examples) == PLAN.examples
    label_of = dict(zip(task.train.texts(), task.train.labels.tolist(), strict=True))
    labels = [label_of[text] for text, _ in examples]
    assert sorted(labels) == [0] * 4 + [1] * 4
    for (_, prompts), label in zip(examples, labels, strict=True):
        filled = {t.format(task="task 0", label=f"class {label}") for t in FOR_BASE_MODELS}
        assert set(prompts) == filled
    learned = {prompt for _, prompts in examples for prompt in prompts}
    assert {prompt for prompt, _, _ in generator.asked} <= learned


def test_texts_of_a_task_are_written_with_the_lora_of_that_task(tmp_path: Path) -> None:
    generator = ScriptedGenerator()
    method, model = replay(generator, templates=["{task} {label}"]), model_of(3)
    prepared(method, model, tmp_path, tasks=3)
    loras = [method.memory()[f"generator-{task}"]["layer.lora_A"] for task in (0, 1)]
    assert not torch.equal(*loras)
    found = {0: 0, 1: 0}
    for (prompt, _, _), worn in zip(generator.asked, generator.worn, strict=True):
        task = int(prompt.split()[1])
        assert worn is not None
        assert torch.equal(worn.weights["layer.lora_A"], loras[task])
        found[task] += 1
    assert all(found.values())


def test_the_report_says_what_was_tuned_on_and_how_the_loss_fell(tmp_path: Path) -> None:
    method, model = replay(ScriptedGenerator()), model_of(1)
    told = list(method.finish_task(model, token_task(tmp_path, 0)))
    assert method.report(model) == {
        "tuning": {"task 0": {"examples": 8, "first_epoch_loss": 8.0, "last_epoch_loss": 4.0}}
    }
    assert told == [("replay: tuning on task 0", 1, 2), ("replay: tuning on task 0", 2, 2)]
    assert "tuning" not in replay(ScriptedGenerator(), tuning=None).report(model)


def test_the_last_task_is_tuned_on_too_and_memory_is_given_back(tmp_path: Path) -> None:
    generator = ScriptedGenerator()
    method, model = replay(generator), model_of(2)
    prepared(method, model, tmp_path)
    released = generator.released
    list(method.finish_task(model, token_task(tmp_path, 1)))
    assert {name for name in method.memory() if name.startswith("generator-")} == {
        "generator-0",
        "generator-1",
    }
    assert generator.released == released + 1


def test_tuning_that_is_stopped_changes_nothing_but_where_it_stands(tmp_path: Path) -> None:
    method, model = replay(ScriptedGenerator()), model_of(2)
    prepared(method, model, tmp_path)
    names, before = set(method.memory()), method.state_dict()
    next(method.finish_task(model, token_task(tmp_path, 1)))
    assert set(method.memory()) == names
    after = method.state_dict()
    assert after.pop("tuning_under_way")["state"]["batches"] == 1
    assert after == before


def test_a_lora_is_of_no_use_with_another_model(tmp_path: Path) -> None:
    first, model = replay(ScriptedGenerator()), model_of(2)
    list(first.finish_task(model, token_task(tmp_path, 0)))
    renamed = ScriptedGenerator()
    renamed.name = "another"
    exchanged = ScriptedGenerator(digest="other weights")
    for generator, problem in ((renamed, "is not 'scripted'"), (exchanged, "has other weights")):
        other = replay(generator)
        other.load_memory(first.memory())
        other.load_state_dict(first.state_dict())
        with pytest.raises(IncompatibleCheckpointError, match=problem):
            list(other.start_task(model, token_task(tmp_path, 1)))


def test_texts_that_are_all_empty_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=r"all texts of empty are empty.*replay_tuning: false"):
        list(replay(ScriptedGenerator()).finish_task(model_of(1), empty_texts(tmp_path)))
