"""Tunes the language model on each task while its texts are there, one LoRA a task."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import count

from torch import Tensor

from plora_cl.data.sampling import stratified_rows
from plora_cl.data.task import Task
from plora_cl.errors import MethodError
from plora_cl.generation.generator import TextGenerator
from plora_cl.generation.lora import Lora
from plora_cl.generation.lora_tuning import TuningExample, TuningPlan, TuningState
from plora_cl.generation.postprocess import in_one_line
from plora_cl.generation.prompts import Prompts
from plora_cl.methods.replay.memory import Group, by_task, named
from plora_cl.state import SeedFor, StateDict, derived_seed
from plora_cl.units import Units


class GeneratorTuning:
    """Learns with a LoRA to write the texts of a task after the prompts that replay will use.

    Args:
        generator: What is tuned; its own weights never change.
        plan: How.
        seed: Of the run.
    """

    def __init__(self, generator: TextGenerator, plan: TuningPlan, *, seed: int) -> None:
        self._generator, self._plan, self._seed = generator, plan, seed
        self._loras: dict[int, Lora] = {}
        self._reports: StateDict = {}
        self._under_way: tuple[StateDict, TuningState] | None = None  # what decides it, and it

    def tune(self, task: Task, prompts: Prompts) -> Units[None]:
        """Tune on ``task``, a batch at a time; `memory` is changed at the very end.

        Args:
            task: Its training texts are learned.
            prompts: What the language model is asked for texts of the task with.

        Raises:
            MethodError: All texts are empty, or tuning has no effect.
            ModelError: The language model cannot be adapted.
            TrainingError: The loss is not finite.
        """
        seed = derived_seed(self._seed, task.index, SeedFor.GENERATOR_TUNING)
        rows = stratified_rows(task.train.labels, self._plan.examples, derived_seed(seed, 0))
        chosen = task.train.subset(rows)
        examples = tuning_examples(chosen.texts(), chosen.labels.tolist(), prompts)
        if not examples:
            raise MethodError(
                f"replay: all texts of {task.name} are empty, so the generator cannot be tuned on "
                "them; switch tuning off (replay_tuning: false), or check the task's text column"
            )
        tuned = yield from self._generator.tune(
            examples,
            self._plan,
            self._state(task.index, len(examples)),
            seed=derived_seed(seed, 1),
            what=f"replay: tuning on {task.name}",
        )
        self._under_way = None
        self._loras[task.index] = tuned.lora
        self._reports[task.name] = {
            "examples": len(examples),
            "first_epoch_loss": tuned.losses[0],
            "last_epoch_loss": tuned.losses[-1],
        }

    def _state(self, task: int, examples: int) -> TuningState:
        """Return where tuning stands, unless that was tuning of something else; else a new one."""
        decides: StateDict = {"task": task, "seed": self._seed, **asdict(self._plan)}
        decides["examples"] = examples
        if self._under_way is None or self._under_way[0] != decides:
            self._under_way = decides, TuningState()
        return self._under_way[1]

    def lora(self, task: int) -> Lora:
        """Return what was tuned on a finished task."""
        return self._loras[task]

    @property
    def reports(self) -> StateDict:
        """By task the number of examples, and losses in nats per token."""
        return copy.deepcopy(self._reports)

    def state_dict(self) -> StateDict:
        """Return `reports` and, if tuning is under way, where it stands and what decides it."""
        state: StateDict = {"tuning": self.reports}
        if self._under_way is not None:
            decides, tuning = self._under_way
            state["tuning_under_way"] = {"decides": dict(decides), "state": tuning.state_dict()}
        return state

    def load_state_dict(self, state: StateDict, /) -> None:
        """Restore `state_dict`; ``state`` may hold more."""
        self._reports = copy.deepcopy(state["tuning"])
        self._under_way = None
        if "tuning_under_way" in state:
            saved = state["tuning_under_way"]
            self._under_way = dict(saved["decides"]), TuningState()
            self._under_way[1].load_state_dict(saved["state"])

    def memory(self) -> Mapping[str, Group]:
        """Return the LoRA of each finished task."""
        return named("generator-", {task: lora.weights for task, lora in self._loras.items()})

    def load_memory(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore `memory`."""
        self._loras = {
            task: Lora({name: tensor.cpu() for name, tensor in group.items()})
            for task, group in by_task("generator-", groups).items()
        }


def tuning_examples(
    texts: Sequence[str], labels: Sequence[int], prompts: Prompts
) -> list[TuningExample]:
    """Return what to learn from texts that are not empty.

    Templates take turns within each class, and from one epoch to the next for each text: counted
    over all texts, a file in which classes alternate would tie a class to a template.
    """
    found = []
    of_class = [count() for _ in prompts.classes]
    turns = range(len(prompts.templates))
    for text, label in zip(map(in_one_line, texts), labels, strict=True):
        if text:
            first = next(of_class[label])
            asked = tuple(prompts.prompt(label, first + turn) for turn in turns)
            found.append(TuningExample(text, asked))
    return found
