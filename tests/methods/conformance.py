"""What every `ContinualMethod` promises, as checks that take a factory of one."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

import safetensors.torch
import torch
from torch import Tensor

from encoders import learn_something, some_batch, tiny_model, token_task
from plora_cl.compute.devices import make_accelerator
from plora_cl.data.batches import Batch, BatchStream
from plora_cl.methods.base import ContinualMethod, MethodStack
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import Cursor, RandomState
from plora_cl.state_digest import state_digest
from plora_cl.training.run.loop import train_epoch
from plora_cl.training.run.optimization import Optimization
from plora_cl.units import Unit

Factory: TypeAlias = Callable[[], ContinualMethod]
Groups: TypeAlias = Mapping[str, Mapping[str, Tensor]]


def begin(method: ContinualMethod, model: ContinualClassifier, folder: Path, task: int) -> None:
    """Grow and start ``task``."""
    grow(method, model, task)
    start(method, model, folder, task)


def grow(method: ContinualMethod, model: ContinualClassifier, task: int) -> None:
    """Grow ``task``."""
    model.grow(2)
    method.grow(model, task)
    method.check(model)


def start(method: ContinualMethod, model: ContinualClassifier, folder: Path, task: int) -> int:
    """Go through all units of the start of ``task``; return how many there were."""
    return len(list(method.start_task(model, token_task(folder, task))))


def finish(method: ContinualMethod, model: ContinualClassifier, folder: Path, task: int) -> int:
    """Go through all units of the end of ``task``; return how many there were."""
    return len(list(method.finish_task(model, token_task(folder, task))))


def grown(
    make: Factory, folder: Path, tasks: int = 2
) -> tuple[ContinualMethod, ContinualClassifier]:
    """Return a method and a model that finished ``tasks`` tasks and have grown one more."""
    method, model = make(), tiny_model(shared="layernorm", composition="cumulative")
    model.train()
    for task in range(tasks):
        begin(method, model, folder, task)
        learn_something(model)
        finish(method, model, folder, task)
    grow(method, model, tasks)
    return method, model


def learned(
    make: Factory, folder: Path, tasks: int = 2
) -> tuple[ContinualMethod, ContinualClassifier]:
    """Return a method and a model that finished ``tasks`` tasks and are in the middle of one."""
    method, model = grown(make, folder, tasks)
    start(method, model, folder, tasks)
    learn_something(model)
    return method, model


def twin_of(
    method: ContinualMethod, model: ContinualClassifier, make: Factory
) -> tuple[ContinualMethod, ContinualClassifier]:
    """Return a fresh method and model, grown anew and filled from bytes."""
    other, other_model = make(), tiny_model(shared="layernorm", composition="cumulative")
    for task in range(model.tasks):
        other_model.grow(2)
        other.grow(other_model, task)
    other_model.train()
    for name, part in other_model.parts().items():
        part.load_state_dict(model.parts()[name].state_dict())
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    other.load_memory(
        {
            name: safetensors.torch.load(safetensors.torch.save(dict(group)))
            for name, group in reversed(list(method.memory().items()))
        }
    )
    other.load_state_dict(torch.load(file, weights_only=True))
    return other, other_model


def penalty_and_gradients(
    method: ContinualMethod, model: ContinualClassifier
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """Return the penalty of the task in training, and its gradients by parameter."""
    trainable = model.trainable()
    penalty = method.penalty(model, model.tasks - 1)
    if penalty is None:
        return None, {}
    found = torch.autograd.grad(penalty, list(trainable.values()), allow_unused=True)
    reached = zip(trainable, cast("tuple[Tensor | None, ...]", found), strict=True)
    return penalty.detach(), {name: g for name, g in reached if g is not None}


def copied(groups: Groups) -> dict[str, dict[str, Tensor]]:
    """Return a deep copy."""
    return {name: {n: t.clone() for n, t in group.items()} for name, group in groups.items()}


def assert_equal(first: Groups, second: Groups) -> None:
    """Compare names and every bit."""
    assert first.keys() == second.keys()
    for name, group in first.items():
        assert group.keys() == second[name].keys()
        different = [n for n, tensor in group.items() if not torch.equal(tensor, second[name][n])]
        assert different == []


def first_task_weights(method: ContinualMethod | None, folder: Path) -> dict[str, Tensor]:
    """Return every weight after two epochs over the first task, trained as a run does it."""
    RandomState.seeded(7)
    model, task = tiny_model(shared="layernorm", composition="cumulative"), token_task(folder, 0)
    if method is None:
        model.grow(2)
    else:
        begin(method, model, folder, 0)
    stack = MethodStack([] if method is None else [method])
    optimization = Optimization(
        make_accelerator(device="cpu", precision="fp32"),
        model.trainable(),
        learning_rate=0.01,
        weight_decay=0.01,
        warmup_ratio=0.1,
        total_steps=6,
        max_grad_norm=1.0,
    )
    cursor, stream = Cursor(), BatchStream(task.train, task=0, batch_size=4, seed=1)
    while cursor.epoch < 2:
        train_epoch(
            model,
            optimization,
            stack,
            stream,
            cursor,
            accumulation=1,
            after_batch=lambda: None,
            after_step=lambda result: None,
        )
    assert cursor.step == 6
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def changes_no_bit_of_learning_the_first_task(make: Factory, folder: Path) -> None:
    """With nothing to hold on to yet, a run with the method is the run without it."""
    assert_equal(
        {"weights": first_task_weights(make(), folder)},
        {"weights": first_task_weights(None, folder)},
    )


def assert_same_batches(first: Sequence[Batch], second: Sequence[Batch]) -> None:
    """Compare what two methods bring in."""
    assert [batch.task for batch in first] == [batch.task for batch in second]
    for one, other in zip(first, second, strict=True):
        for name in ("input_ids", "attention_mask", "labels"):
            assert torch.equal(getattr(one, name), getattr(other, name))


def has_no_effect_before_anything_is_learned(make: Factory, folder: Path) -> None:
    """Nothing is added to the loss of the first task."""
    method, model = make(), tiny_model(shared="layernorm")
    begin(method, model, folder, 0)
    learn_something(model)
    assert method.penalty(model, 0) is None
    assert list(method.draw_extra_batches(some_batch(4, 5))) == []
    assert dict(method.memory()) == {}


def acts_on_something_trainable_afterwards(make: Factory, folder: Path) -> None:
    """A later task gets a penalty with a gradient, or more to learn from."""
    method, model = learned(make, folder)
    penalties = MethodStack([method]).penalties(model, model.tasks - 1)
    extra = method.draw_extra_batches(some_batch(4, 5, task=2))
    assert penalties or extra
    for batch in extra:
        logits = model(batch.input_ids, batch.attention_mask, batch.task)
        assert reaches_something(torch.nn.functional.cross_entropy(logits, batch.labels), model)
    for penalty in penalties.values():
        assert reaches_something(penalty, model)


def reaches_something(term: Tensor, model: ContinualClassifier) -> bool:
    """Whether a part of the loss has a gradient that is not zero towards what is trained."""
    found = torch.autograd.grad(term, list(model.trainable().values()), allow_unused=True)
    return any(g is not None and bool(g.any()) for g in cast("tuple[Tensor | None, ...]", found))


def reports_in_plain_json_and_disturbs_nothing(make: Factory, folder: Path) -> None:
    """The report says the same of a twin filled from bytes, and draws or changes nothing."""
    method, model = learned(make, folder)
    other, other_model = twin_of(method, model, make)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    memory = copied(method.memory())
    before = RandomState.seeded(5).state_dict()
    stack = MethodStack([method])
    report = stack.report(model)
    assert stack.notes(model) == MethodStack([other]).notes(other_model)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report == MethodStack([other]).report(other_model)
    assert_same_random_state(before)
    assert_equal({"w": weights}, {"w": dict(model.named_parameters())})
    assert_equal(memory, method.memory())


def survives_a_round_trip_to_the_bit(make: Factory, folder: Path) -> None:
    """A twin filled from bytes has the same penalty now and the same memory later."""
    method, model = learned(make, folder)
    for _ in range(2):
        method.draw_extra_batches(some_batch(4, 5, 3, task=2))
    other, other_model = twin_of(method, model, make)
    assert_equal(method.memory(), other.memory())
    penalty, gradients = penalty_and_gradients(method, model)
    twin_penalty, twin_gradients = penalty_and_gradients(other, other_model)
    assert_equal({"gradients": gradients}, {"gradients": twin_gradients})
    if penalty is not None:
        assert twin_penalty is not None
        assert torch.equal(penalty, twin_penalty)
    for seed in range(3):
        batch = some_batch(4, 5, 3, task=2, seed=seed)
        assert_same_batches(method.draw_extra_batches(batch), other.draw_extra_batches(batch))
    for m, its_model in ((method, model), (other, other_model)):
        finish(m, its_model, folder, 2)
        begin(m, its_model, folder, 3)
        learn_something(its_model)
    assert_equal(method.memory(), other.memory())
    assert_equal(
        {"gradients": penalty_and_gradients(method, model)[1]},
        {"gradients": penalty_and_gradients(other, other_model)[1]},
    )


def loading_replaces_what_was_there(make: Factory, folder: Path) -> None:
    """A method that went on learning can be rewound."""
    method, model = learned(make, folder)
    memory, state = copied(method.memory()), method.state_dict()
    before, _ = penalty_and_gradients(method, model)
    weights = {n: copied({n: part.state_dict()})[n] for n, part in model.parts().items()}
    learn_something(model)
    with torch.no_grad():
        for parameter in model.adapters.parameters(0).values():
            parameter.add_(0.5)
    finish(method, model, folder, 2)
    penalty_and_gradients(method, model)
    for name, part in model.parts().items():
        part.load_state_dict(dict(weights[name]))
    method.load_memory(memory)
    method.load_state_dict(state)
    after, _ = penalty_and_gradients(method, model)
    assert_equal(method.memory(), memory)
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert torch.equal(before, after)


def a_start_can_be_taken_up_after_any_unit(make: Factory, folder: Path) -> None:
    """Saved after any unit, or begun again when all are done, it ends as if it had run through."""
    whole, model = grown(make, folder)
    units = start(whole, model, folder, 2)
    for stop in spread(1, units):
        method, model = grown(make, folder)
        method, model = cut_after(
            stop, method.start_task(model, token_task(folder, 2)), method, model, make
        )
        assert start(method, model, folder, 2) == units - stop
        assert_same_future(method, whole)


def an_end_can_be_taken_up_after_any_unit(make: Factory, folder: Path) -> None:
    """Saved after any unit, or begun again when all are done, it ends as if it had run through."""
    whole, model = learned(make, folder)
    units = finish(whole, model, folder, 2)
    for stop in spread(0, units):
        method, model = learned(make, folder)
        method, model = cut_after(
            stop, method.finish_task(model, token_task(folder, 2)), method, model, make
        )
        assert finish(method, model, folder, 2) == units - stop
        assert_same_future(method, whole)


def an_end_that_is_stopped_after_every_unit_comes_about(make: Factory, folder: Path) -> None:
    """One unit a process is enough, and what is begun again when all is done changes nothing."""
    whole, model = learned(make, folder)
    units = finish(whole, model, folder, 2)
    method, model = learned(make, folder)
    for _ in range(units):
        method, model = cut_after(
            1, method.finish_task(model, token_task(folder, 2)), method, model, make
        )
    for _ in range(2):
        assert finish(method, model, folder, 2) == 0
        assert_same_future(method, whole)
        method, model = twin_of(method, model, make)


def spread(first: int, last: int) -> list[int]:
    """Return the whole numbers from ``first`` to ``last``: eight of them at most, both ends in."""
    count = min(last - first + 1, 8)
    return sorted({first + round(k * (last - first) / max(count - 1, 1)) for k in range(count)})


def cut_after(
    units: int,
    work: Iterable[Unit],
    method: ContinualMethod,
    model: ContinualClassifier,
    make: Factory,
) -> tuple[ContinualMethod, ContinualClassifier]:
    """Do so many units, and return a twin filled from bytes of what is there then."""
    memory = set(method.memory())
    under_way = iter(work)
    for _ in range(units):
        next(under_way)
    assert set(method.memory()) >= memory
    return twin_of(method, model, make)


def assert_same_future(method: ContinualMethod, other: ContinualMethod) -> None:
    """Compare all that a checkpoint holds of two methods."""
    assert_equal(method.memory(), other.memory())
    assert state_digest(method.state_dict()) == state_digest(other.state_dict())


def starting_a_task_disturbs_nothing(make: Factory, folder: Path) -> None:
    """After each unit weights, modes and random generators are as they were."""
    method, model = grown(make, folder)
    for training in (True, False):
        model.train(training)
        modes = {name: module.training for name, module in model.named_modules()}
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        before = RandomState.seeded(5).state_dict()
        for _ in method.start_task(model, token_task(folder, 2)):
            assert_same_random_state(before)
            assert {name: module.training for name, module in model.named_modules()} == modes
            assert_equal({"w": weights}, {"w": dict(model.named_parameters())})


def growing_can_be_replayed(make: Factory, folder: Path) -> None:
    """It draws no random number, and the same structure comes out each time."""
    RandomState.seeded(3)
    before = RandomState().state_dict()
    shapes = []
    for _ in range(2):
        method, model = make(), tiny_model(shared="layernorm")
        for task in range(3):
            model.grow(2)
            method.grow(model, task)
        shapes.append({name: p.detach().clone() for name, p in model.named_parameters()})
        assert dict(method.memory()) == {}
    assert_equal({"weights": shapes[0]}, {"weights": shapes[1]})
    assert_same_random_state(before)


def finishing_a_task_disturbs_nothing(make: Factory, folder: Path) -> None:
    """After each unit weights, gradients, modes and random generators are as they were."""
    for training in (True, False):
        method, model = learned(make, folder)
        model.train(training)
        modes = {name: module.training for name, module in model.named_modules()}
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        before = RandomState.seeded(5).state_dict()
        units = iter(method.finish_task(model, token_task(folder, 2)))
        is_left = True
        while is_left:
            is_left = next(units, None) is not None
            assert_same_random_state(before)
            assert {name: module.training for name, module in model.named_modules()} == modes
            assert_equal({"w": weights}, {"w": dict(model.named_parameters())})
            assert all(p.grad is None for p in model.parameters())


def what_it_remembers_stays_as_it_is(make: Factory, folder: Path) -> None:
    """Learning on does not change the memory behind the back of a checkpoint."""
    method, model = learned(make, folder)
    memory = copied(method.memory())
    learn_something(model)
    penalty_and_gradients(method, model)
    assert_equal(memory, method.memory())


def assert_same_random_state(before: Mapping[str, object]) -> None:
    """Compare the generators of Python, NumPy and PyTorch with ``before``."""
    file, other = io.BytesIO(), io.BytesIO()
    torch.save(before, file)
    torch.save(RandomState().state_dict(), other)
    assert file.getvalue() == other.getvalue()


CHECKS: list[Callable[[Factory, Path], None]] = [
    changes_no_bit_of_learning_the_first_task,
    has_no_effect_before_anything_is_learned,
    acts_on_something_trainable_afterwards,
    survives_a_round_trip_to_the_bit,
    loading_replaces_what_was_there,
    a_start_can_be_taken_up_after_any_unit,
    an_end_can_be_taken_up_after_any_unit,
    an_end_that_is_stopped_after_every_unit_comes_about,
    starting_a_task_disturbs_nothing,
    growing_can_be_replayed,
    finishing_a_task_disturbs_nothing,
    what_it_remembers_stays_as_it_is,
    reports_in_plain_json_and_disturbs_nothing,
]
