"""Generative replay: earlier tasks are learned again from texts that a language model wrote."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from torch import Tensor

from plora_cl.data.batches import Batch
from plora_cl.data.task import Task
from plora_cl.errors import MethodError
from plora_cl.generation.generator import TextGenerator
from plora_cl.generation.lora_tuning import TuningPlan
from plora_cl.generation.postprocess import normalised_digest
from plora_cl.generation.prompts import Prompts, Templates
from plora_cl.methods.base import ContinualMethod
from plora_cl.methods.replay.draft import Draft, as_digests, as_tensor, quotas
from plora_cl.methods.replay.generator_identity import GeneratorIdentity
from plora_cl.methods.replay.generator_tuning import GeneratorTuning
from plora_cl.methods.replay.memory import Group, by_task, named
from plora_cl.methods.replay.pool import ReplayPool
from plora_cl.methods.replay.schedule import ReplaySchedule
from plora_cl.methods.replay.writer import Encode, ReplayWriter, Writing
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.state import SeedFor, StateDict, derived_seed
from plora_cl.units import Unit, Units

_BUDGET_FACTOR = 4  # more than one text in four is what a filter that works lets through

log = logging.getLogger(__name__)


class GenerativeReplay(ContinualMethod):
    """Mixes texts of earlier tasks, written by a language model, into the batches of a task.

    Before task ``t`` the model writes ``ratio * |D_t|`` texts, as many for each earlier task and
    each of its classes, at least one. A text is kept where the earlier task's own adapter and head
    predict the class that was asked for, and where it is new; one that equals a training text is
    kept and counted: it is as good an example as any, and hiding it would hide what the model has
    by heart. While ``t`` is learned, ``floor(ratio * n)`` of them come with its first ``n``
    examples, each time all of one earlier task, the tasks in turn, through their own adapters and
    head. The loss weighs each like an example of ``t``.

    Written texts stay until ``t`` is finished; of earlier training texts only digests are kept, and
    a LoRA of the language model for each task if it is tuned.

    Args:
        generator: Writes texts.
        encode: Turns texts into token ids of the encoder, cut to its length.
        pad_token_id: Of the encoder.
        ratio: Replayed examples per training example, above 0.
        templates: Prompts; None for those that suit the generator.
        filtered: Ask the earlier task's head whether a text is of its class.
        token_budget: New tokens that may be generated before each task, shared by the classes in
            proportion to what they want and looked at between chunks; 0 for four times
            ``max_new_tokens`` for each text wanted.
        max_new_tokens: Longest text the generator writes, in tokens.
        batch_size: Texts to generate at once, a chunk.
        tuning: How to tune the language model on each task when it is finished; None leaves it as
            it is.
        seed: Decides what is written and in which order it is learned from.

    Source: Sun et al. 2020, "LAMOL: LAnguage MOdeling for Lifelong Language Learning", section 3.2
    (pseudo samples in a ratio gamma to those of the task, equal shares of earlier tasks); Shin et
    al. 2017, "Continual Learning with Deep Generative Replay", section 3.1.
    """

    name = "replay"

    def __init__(
        self,
        *,
        generator: TextGenerator,
        encode: Encode,
        pad_token_id: int,
        ratio: float,
        templates: Templates = None,
        filtered: bool = True,
        token_budget: int = 0,
        max_new_tokens: int = 50,
        batch_size: int = 16,
        tuning: TuningPlan | None = None,
        seed: int = 0,
    ) -> None:
        self._generator = generator
        self._identity = GeneratorIdentity(lasting=tuning is not None)
        self._tuning = None if tuning is None else GeneratorTuning(generator, tuning, seed=seed)
        self._writer = ReplayWriter(
            generator,
            encode=encode,
            pad_token_id=pad_token_id,
            filtered=filtered,
            batch_size=batch_size,
            seed=seed,
        )
        self._pad_token_id, self._seed = pad_token_id, seed
        self._ratio = Fraction(repr(ratio))  # 0.1 means a tenth: no example is lost to rounding
        self._schedule = ReplaySchedule(self._ratio)
        self._templates = templates
        self._token_budget, self._max_new_tokens = token_budget, max_new_tokens
        self._finished: list[tuple[str, tuple[str, ...]]] = []
        self._known_texts: dict[int, Tensor] = {}
        self._reports: StateDict = {}
        self._begin(None)

    def start_task(self, model: ContinualClassifier, task: Task) -> Units[None]:
        """Have the examples of earlier tasks written; a unit is a chunk of texts.

        Raises:
            MethodError: Not one text was kept.
            IncompatibleCheckpointError: The weights of the generator are not those of the run.
        """
        if self._task != task.index:
            self._begin(task.index)
        if not self._finished:
            return
        wanted = quotas(
            int(self._ratio * len(task.train)), [len(classes) for _, classes in self._finished]
        )
        if len(self._pools) == len(wanted):
            return
        total = sum(map(sum, wanted))
        done = 0
        for earlier, of_classes in enumerate(wanted):
            if earlier not in self._pools:
                for so_far in self._write(model, earlier, of_classes, total):
                    yield Unit(
                        f"replay: writing {self._finished[earlier][0]}", done + so_far, total
                    )
            done += sum(of_classes)
        self._generator.release()
        self._require_examples()
        yield Unit("replay: writing", total, total)

    def draw_extra_batches(self, batch: Batch) -> Sequence[Batch]:
        """Draw the examples that come with ``batch``, all of one earlier task."""
        tasks = [task for task, pool in self._pools.items() if len(pool)]
        turn = self._schedule.next(len(batch.labels), tasks)
        if turn is None:
            return ()
        return (self._pools[turn.task].batch(turn.first, turn.examples),)

    def finish_task(self, model: ContinualClassifier, task: Task) -> Units[None]:
        """Remember what prompts need, and digests of the training texts; drop what was written.

        The language model is tuned first, if it is; a unit is a batch. Whether a task is the last
        one cannot be known: more may be appended to a stream.
        """
        if task.index in self._known_texts:
            return
        if self._tuning is not None:
            self._identity.require_same(self._generator)
            yield from self._tuning.tune(task, self._prompts(task.name, task.classes))
            self._generator.release()
        digests = [normalised_digest(text) for text in task.train.texts()]
        self._known_texts[task.index] = as_tensor(digests)
        self._finished.append((task.name, task.classes))
        self._begin(None)

    def report(self, model: ContinualClassifier) -> StateDict:
        """Return what became of generated texts, by task learned and earlier task.

        ``generated`` is the sum of ``kept``, ``empty``, ``duplicate`` (of a kept text),
        ``disagreed`` (the head predicted another class) and ``surplus`` (the class had enough).
        ``tuning`` has, by task, on how many texts the language model was tuned and the loss per
        token in its first and last epoch.
        """
        tuning = {} if self._tuning is None else {"tuning": self._tuning.reports}
        return {**tuning, **{learned: dict(by_task) for learned, by_task in self._reports.items()}}

    def _begin(self, task: int | None) -> None:
        self._task = task
        self._pools: dict[int, ReplayPool] = {}
        self._writing: Writing | None = None
        self._schedule.restart()

    def _write(
        self, model: ContinualClassifier, earlier: int, of_classes: Sequence[int], total: int
    ) -> Iterator[int]:
        """Write the examples of one earlier task; yield how many are settled after each chunk."""
        self._identity.require_same(self._generator)
        lora = None if self._tuning is None else self._tuning.lora(earlier)
        writing = self._writing = self._writing or self._begun(earlier, of_classes)
        draft = writing.draft
        all_tokens = self._token_budget or _BUDGET_FACTOR * self._max_new_tokens * total
        budgets = [-(-all_tokens * wanted // total) for wanted in draft.quotas]
        known = frozenset(as_digests(self._known_texts[earlier]))
        for label, budget in enumerate(budgets):
            while not draft.is_settled(label, budget):
                self._writer.write_chunk(model, writing, label, known, lora)
                yield draft.settled(budgets)
        self._tell(writing)
        self._pools[earlier] = self._pool(earlier, draft.group())
        self._writing = None

    def _begun(self, earlier: int, of_classes: Sequence[int]) -> Writing:
        assert self._task is not None
        prompts = self._prompts(*self._finished[earlier])
        return Writing(self._task, earlier, prompts, Draft(of_classes))

    def _prompts(self, task: str, classes: Sequence[str]) -> Prompts:
        is_tuned = self._generator.instruction_tuned
        return Prompts.of(task, classes, self._templates, instruction_tuned=is_tuned)

    def _tell(self, writing: Writing) -> None:
        """Keep the counts of a finished draft, and say so where it fell short."""
        prompts, counts = writing.prompts, writing.draft.report()
        by_task = self._reports.setdefault(str(self._task), {})
        by_task[prompts.task] = {**counts, "templates": list(prompts.templates)}
        if (shortfall := writing.shortfall()) is not None:
            log.warning("%s", shortfall)

    def _require_examples(self) -> None:
        if not any(map(len, self._pools.values())):
            raise MethodError(
                f"replay: not one text written by {self._generator.name} was kept, so "
                "nothing can be replayed; raise replay_token_budget, write replay_prompts that "
                "name the classes better, choose another generation_model, or keep texts the heads "
                "do not confirm (replay_filter: false)"
            )

    def _pool(self, earlier: int, group: Group) -> ReplayPool:
        def seed_of_pass(number: int) -> int:
            assert self._task is not None
            return derived_seed(self._seed, self._task, SeedFor.REPLAY_ORDER, earlier, number)

        return ReplayPool(
            group, task=earlier, pad_token_id=self._pad_token_id, seed_of_pass=seed_of_pass
        )

    def state_dict(self) -> StateDict:
        """Return where replay stands, and the draft that is being written."""
        return {
            "task": self._task,
            "finished": [[name, list(classes)] for name, classes in self._finished],
            "generator_weights": list(self._identity.seen),
            "schedule": self._schedule.state_dict(),
            "writing": {} if self._writing is None else self._writing.state_dict(),
            "reports": copy.deepcopy(self._reports),
            **({} if self._tuning is None else self._tuning.state_dict()),
        }

    def load_state_dict(self, state: StateDict, /) -> None:
        """Restore `state_dict`."""
        self._task = state["task"]
        self._finished = [(name, tuple(classes)) for name, classes in state["finished"]]
        # Earlier states have the digest of something else after the name.
        self._identity.load(state.get("generator_weights", state.get("generator", ())[:1]))
        self._schedule.load_state_dict(state["schedule"])
        self._writing = Writing.from_state(state["writing"]) if state["writing"] else None
        self._reports = copy.deepcopy(state["reports"])
        if self._tuning is not None:
            self._tuning.load_state_dict(state)

    def memory(self) -> Mapping[str, Group]:
        """Return digests of the texts of each finished task, and what is written for this one.

        With tuning also the LoRA of each finished task.
        """
        return {
            **named("texts-", {k: {"digests": known} for k, known in self._known_texts.items()}),
            **named("examples-", {k: pool.group for k, pool in self._pools.items()}),
            **({} if self._tuning is None else self._tuning.memory()),
        }

    def load_memory(self, groups: Mapping[str, Group]) -> None:
        """Restore `memory`."""
        texts, examples = by_task("texts-", groups), by_task("examples-", groups)
        self._known_texts = {task: group["digests"].cpu() for task, group in texts.items()}
        self._pools = {task: self._pool(task, group) for task, group in examples.items()}
        if self._tuning is not None:
            self._tuning.load_memory(groups)
