"""Break the code of each technique once: the tests that hold its formula must go red.

``pytest -m slow tests/test_mutants.py`` runs them; a plain run checks that each still applies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "plora_cl"
IMBALANCE = "tests/training/test_imbalance.py"
STATISTICS = "tests/evaluation/test_statistics.py"
FISHER, EWC, OLORA = (
    "tests/methods/test_fisher.py",
    "tests/methods/test_ewc.py",
    "tests/methods/test_olora.py",
)
CONTRACT = "tests/methods/test_conformance.py"
LATERAL = "tests/model/test_lateral.py"
METRICS, RESULTS = "tests/evaluation/test_metrics.py", "tests/evaluation/test_results.py"
ZEROS = "tests/evaluation/test_by_construction.py"
SHARED = "tests/model/test_shared_and_joint.py"
MIXTURE, CACHE = "tests/data/test_mixture.py", "tests/data/test_cache.py"
JOINT = "tests/training/test_joint.py"
TUNING, TUNED_TASKS = "tests/generation/test_tuning.py", "tests/methods/test_replay_tuning.py"
TUNED_RUNS = "tests/training/test_replay_tuning.py"
HISTORIES = "tests/faults/test_histories.py"
OWN_METHODS = "tests/training/test_own_methods.py"


class Mutant(NamedTuple):
    """A change of one place in the source that makes it wrong.

    Attributes:
        file: Below the package.
        right: The text there, once.
        wrong: What replaces it.
        tests: Where it has to be noticed.
    """

    file: str
    right: str
    wrong: str
    tests: str


MUTANTS = {
    "Fisher without division": Mutant(
        "methods/ewc/fisher.py", "square / self.examples for", "square for", FISHER
    ),
    "Fisher without square": Mutant(
        "methods/ewc/fisher.py",
        "addcmul_(gradient, gradient, value=weight)",
        "add_(gradient, alpha=weight)",
        FISHER,
    ),
    "exact Fisher without probabilities": Mutant(
        "methods/ewc/fisher.py", "[(probability, c) for", "[(1.0, c) for", FISHER
    ),
    "sampled labels from a uniform distribution": Mutant(
        "methods/ewc/fisher.py", "multinomial(p,", "multinomial(torch.ones_like(p),", FISHER
    ),
    "sampled labels from the global generator": Mutant(
        "methods/ewc/fisher.py", "1, generator=self._labels)", "1)", FISHER
    ),
    "batched Fisher squares sums": Mutant(
        "methods/ewc/fisher.py", "gradient / examples for", "gradient for", FISHER
    ),
    "batched Fisher forgets the last mini-batch": Mutant(
        "methods/ewc/fisher.py", "        if not rest:\n", "        if True:\n", FISHER
    ),
    "Fisher with dropout": Mutant(
        "model/evaluation_mode.py", "        module.eval()\n", "        pass\n", FISHER
    ),
    "Fisher under autocast": Mutant(
        "methods/ewc/fisher.py", "enabled=False", "enabled=True", FISHER
    ),
    "online sum without gamma": Mutant(
        "methods/ewc/penalty.py",
        "self._gamma * earlier[name] + value",
        "earlier[name] + value",
        EWC,
    ),
    "moving average instead of a decayed sum": Mutant(
        "methods/ewc/penalty.py",
        "self._gamma * earlier[name] + value",
        "self._gamma * earlier[name] + (1 - self._gamma) * value",
        EWC,
    ),
    "anchor that follows the weights": Mutant(
        "methods/ewc/penalty.py",
        'parameter.detach().to("cpu", copy=True)',
        "parameter.detach()",
        CONTRACT,
    ),
    "EWC without the half": Mutant(
        "methods/ewc/penalty.py", "self._gamma / 2\n", "self._gamma\n", EWC
    ),
    "online penalty without gamma": Mutant(
        "methods/ewc/penalty.py", "self._strength * self._gamma / 2\n", "self._strength / 2\n", EWC
    ),
    "EWC without the distance between anchors": Mutant(
        "methods/ewc/penalty.py", " + offset)", ")", EWC
    ),
    "EWC without gradient": Mutant(
        "methods/ewc/penalty.py", "[p.reshape(-1) for", "[p.detach().reshape(-1) for", CONTRACT
    ),
    "EWC with a parabola of yesterday": Mutant(
        "methods/ewc/penalty.py",
        "        self._groups[group] = fresh\n        self._parabola = None\n",
        "        self._groups[group] = fresh\n",
        EWC,
    ),
    "scales of the Fisher information not saved": Mutant(
        "methods/ewc/penalty.py", "[dict(scale) for scale in self._scales]}", "[]}", CONTRACT
    ),
    "mini-batches in the order of lengths": Mutant(
        "methods/ewc/penalty.py", 'if self._estimator == "batched":', "if False:", EWC
    ),
    "same labels drawn whatever the seed": Mutant(
        "methods/ewc/penalty.py",
        'derived_seed(decides["seed"], decides["task"], SeedFor.FISHER_LABELS)',
        "0",
        EWC,
    ),
    "Laplace lambda upside down": Mutant(
        "methods/ewc/scale.py",
        'scale["train_examples"] / sizes[scale["task"] + 1]',
        'sizes[scale["task"] + 1] / scale["train_examples"]',
        EWC,
    ),
    "absolute overlaps without abs": Mutant(
        "methods/olora/penalty.py", "overlap.abs().sum()", "overlap.sum()", OLORA
    ),
    "gradient into earlier adapters": Mutant(
        "methods/olora/penalty.py", "stack[layer].detach()", "stack[layer]", OLORA
    ),
    "overlap with the task before alone": Mutant(
        "methods/olora/penalty.py",
        "earlier in range(task)]",
        "earlier in range(task - 1, task)]",
        OLORA,
    ),
    "earlier adapters concatenated at every step": Mutant(
        "methods/olora/penalty.py", "if task != self._task:", "if True:", OLORA
    ),
    "squared norms": Mutant(
        "methods/olora/penalty.py",
        "torch.linalg.vector_norm(matrix)",
        "matrix.square().sum()",
        OLORA,
    ),
    "overlap that depends on sizes": Mutant(
        "methods/olora/penalty.py",
        "return basis[values > tolerance]",
        "return matrix.cpu().double()",
        OLORA,
    ),
    "a penalty without gradient is let through": Mutant(
        "methods/base.py", "if not term.requires_grad:", "if False:", "tests/methods/test_stack.py"
    ),
    "gate that starts open": Mutant("model/lateral.py", "torch.zeros(1)", "torch.ones(1)", LATERAL),
    "gradient into earlier features": Mutant(
        "model/evaluation_mode.py",
        "torch.set_grad_enabled(gradients)",
        "torch.enable_grad()",
        LATERAL,
    ),
    "dropout in earlier features": Mutant(
        "model/evaluation_mode.py", "        module.eval()\n", "        pass\n", LATERAL
    ),
    "sum of earlier features": Mutant(
        "model/classifier.py",
        "torch.stack(earlier).mean(0)",
        "torch.stack(earlier).sum(0)",
        LATERAL,
    ),
    "a network that starts at zero": Mutant(
        "model/lateral.py",
        "        self.gate = ",
        "        nn.init.zeros_(self.up.weight)\n        self.gate = ",
        LATERAL,
    ),
    "backward transfer with the wrong sign": Mutant(
        "evaluation/metrics.py",
        "results[-1, :-1] - np.diagonal(results)[:-1]",
        "np.diagonal(results)[:-1] - results[-1, :-1]",
        METRICS,
    ),
    "the identity never checked": Mutant("evaluation/metrics.py", "<= 1e-9", "<= 1e9", METRICS),
    "marked as zero although something is shared": Mutant(
        "evaluation/by_construction.py", "if joint or shared or", "if joint or", ZEROS
    ),
    "zeros never checked": Mutant(
        "evaluation/results.py", "in (None, 0.0), f", "not in (7.0,), f", RESULTS
    ),
    "a shared adapter that does not act": Mutant(
        "model/adapters.py", "[*self._always, *(", "[*(", SHARED
    ),
    "a shared adapter that starts as the first task's": Mutant(
        "model/adapted_encoder.py", "0, SeedFor.SHARED_ADAPTER", "0, SeedFor.ADAPTER", SHARED
    ),
    "a parameter of the encoder that is not shared": Mutant(
        "model/encoder.py",
        """if shared == "all":
        return [name for name, _ in encoder.named_parameters()]""",
        """if shared == "all":
        return [name for name, _ in encoder.named_parameters()][1:]""",
        SHARED,
    ),
    "joint training that freezes earlier tasks": Mutant(
        "model/classifier.py", "range(0 if self.joint else max(", "range(max(", SHARED
    ),
    "no dropout for adapters in joint training": Mutant(
        "model/classifier.py",
        "min(self.learning.start, len(self.adapters))",
        "max(len(self.adapters) - 1, 0)",
        SHARED,
    ),
    "epochs that start every task anew": Mutant(
        "data/mixture.py", "epoch * self._share + turn", "turn", MIXTURE
    ),
    "the same order of tasks in every epoch": Mutant(
        "data/mixture.py", "(seed, 0, epoch, ", "(seed, 0, 0, ", MIXTURE
    ),
    "tasks one after the other within an epoch": Mutant(
        "data/mixture.py", "generator.permutation(batches)", "np.arange(batches)", MIXTURE
    ),
    "heads of joint training taken for finished": Mutant(
        "training/run/components.py",
        "return self.stage.first",
        "return self.cursor.task",
        JOINT,
    ),
    "joint training on batches of the last task": Mutant(
        "training/run/stage.py",
        "splits = [task.train for task in tasks]",
        "splits = [tasks[-1].train for task in tasks]",
        JOINT,
    ),
    "early stopping by the last task alone": Mutant(
        "training/run/phases.py", "sum(scores) / len(scores)", "scores[-1]", JOINT
    ),
    "class weights that no gradient sees": Mutant(
        "training/run/optimization.py",
        "self._cross_entropy(model, batch, weights)",
        "self._cross_entropy(model, batch)",
        IMBALANCE,
    ),
    "class weights divided by those of the batch": Mutant(
        "training/run/optimization.py",
        "return cost / len(batch.labels)",
        "return cost / weights[batch.labels].sum()",
        IMBALANCE,
    ),
    "runs of one order taken for independent": Mutant(
        "study/statistics.py", "_LEAST_ORDERS = 2", "_LEAST_ORDERS = 99", STATISTICS
    ),
    "texts held out for nobody": Mutant(
        "config/schema.py",
        'settings.hold_out_validation == "always"',
        "True",
        "tests/training/test_held_out.py",
    ),
    "joint training that begins at the first task": Mutant(
        "training/run/components.py", "Cursor(task=self.stages[0].last)", "Cursor(task=0)", JOINT
    ),
    "tasks appended to joint training": Mutant(
        "checkpoint/snapshot/compatibility.py",
        "as_structural(change, LEARNED_TOGETHER) if joint else change",
        "change",
        JOINT,
    ),
    "a generator that learns its prompts": Mutant(
        "generation/lora_tuning.py",
        "targets[line, prompt_tokens : len(tokens)] = torch.tensor(tokens[prompt_tokens:])",
        "targets[line, : len(tokens)] = torch.tensor(tokens)",
        TUNING,
    ),
    "a generator that learns its padding": Mutant(
        "generation/lora_tuning.py",
        "torch.full_like(ids, _IGNORED)",
        "torch.zeros_like(ids)",
        TUNING,
    ),
    "a LoRA that stays in the generator": Mutant(
        "generation/lora.py", "        tuner.unload()\n", "        pass\n", TUNING
    ),
    "a LoRA merged into the generator": Mutant(
        "generation/lora.py", "tuner.unload()", "tuner.merge_and_unload()", TUNING
    ),
    "tokens that are not compared with the name of their file": Mutant(
        "data/tokens/cache.py", "TokenFile(path, sha256=path.stem)", "TokenFile(path)", CACHE
    ),
    "a LoRA that starts from the global generator": Mutant(
        "pretrained/lora_matrices.py",
        "a=math.sqrt(5), generator=generator",
        "a=math.sqrt(5)",
        TUNING,
    ),
    "a LoRA in half precision": Mutant(
        "generation/lora.py", "        cast_adapter_dtype(model, _NAME)  #", "        #", TUNING
    ),
    "tuning that draws from the global generators": Mutant(
        "generation/causal.py",
        "with self._own_randomness(), torch.autocast(self._device.type, enabled=False):\n",
        "with torch.autocast(self._device.type, enabled=False):\n",
        TUNING,
    ),
    "texts tuned on without their end": Mutant(
        "generation/causal.py", "special=False), *ends]", "special=False)]", TUNING
    ),
    "generation without the LoRA": Mutant(
        "generation/causal.py", "nullcontext() if lora is None", "nullcontext() if True", TUNING
    ),
    "a cache that takes a tuned generator for the plain one": Mutant(
        "generation/text_cache.py", "        if lora is not None:\n", "        if False:\n", TUNING
    ),
    "templates tied to classes": Mutant(
        "methods/replay/generator_tuning.py",
        "next(of_class[label])",
        "next(of_class[0])",
        TUNED_TASKS,
    ),
    "one prompt for every epoch of tuning": Mutant(
        "methods/replay/generator_tuning.py",
        "prompt(label, first + turn)",
        "prompt(label, 0)",
        TUNED_TASKS,
    ),
    "texts of every task written with the LoRA of the first": Mutant(
        "methods/replay/method.py",
        "self._tuning.lora(earlier)",
        "self._tuning.lora(0)",
        TUNED_TASKS,
    ),
    "a LoRA tuned on a model nobody remembers": Mutant(
        "methods/replay/method.py",
        "            self._identity.require_same(self._generator)\n            yield from",
        "            yield from",
        TUNED_TASKS,
    ),
    "LoRAs of the generator not restored": Mutant(
        "methods/replay/method.py",
        "            self._tuning.load_memory(groups)\n",
        "            pass\n",
        TUNED_RUNS,
    ),
    "a report of tuning that is not restored": Mutant(
        "methods/replay/generator_tuning.py",
        'self._reports = copy.deepcopy(state["tuning"])',
        "pass",
        TUNED_RUNS,
    ),
    "rotation that ignores pins": Mutant(
        "checkpoint/store/retention.py", ") | pins.pinned(store)\n", ")\n", HISTORIES
    ),
    "objects of retired checkpoints removed": Mutant(
        "checkpoint/store/retention.py",
        "    for entry in store.everything():\n",
        "    for entry in store.entries():\n",
        HISTORIES,
    ),
    "resuming from the oldest checkpoint": Mutant(
        "checkpoint/store/branches.py",
        "entry = untried.pop()",
        "entry = untried.pop(0)",
        HISTORIES,
    ),
    "results that name other settings": Mutant(
        "training/publishing.py",
        "identity=with_sources(run.checkpointer.facts.identity, run.components.tasks),",
        "identity={**with_sources(run.checkpointer.facts.identity, run.components.tasks),"
        " 'learning_rate': 0.01},",
        HISTORIES,
    ),
    "weights that change before a save has copied them": Mutant(
        "training/run/phases.py",
        "lambda *_: run.checkpointer.settle()",
        "lambda *_: None",
        "tests/training/test_background_saves.py",
    ),
    "epochs without improvement forgotten": Mutant(
        "training/run/early_stopping.py", '"stale": self._stale', '"stale": 0', HISTORIES
    ),
    "a refused overwrite that has begun": Mutant(
        "training/trainer.py",
        "        require_startable(store, resume=resume, overwrite=overwrite)\n",
        "        set_aside(store) if overwrite else None\n"
        "        require_startable(store, resume=resume, overwrite=overwrite)\n",
        "tests/training/test_overwriting.py",
    ),
    "unfinished results that stay": Mutant(
        "checkpoint/store/retention.py",
        'for place in (folder, folder / "results", store.directory):',
        "for place in (store.directory,):",
        HISTORIES,
    ),
    "a run resumed without a method of its own": Mutant(
        "training/own_methods.py", "sorted({*before, *now})", "()", OWN_METHODS
    ),
    "a method that remembers the run before": Mutant(
        "training/own_methods.py", "copy.deepcopy(method)", "method", OWN_METHODS
    ),
    "settings recorded of a package that is not used": Mutant(
        "config/schema.py",
        "for t in added() if not t.is_on(settings)",
        "for t in ()",
        "tests/training/test_installed_method.py",
    ),
    "a package that is on because it is installed": Mutant(
        "methods/registry.py",
        "fields[switch].default is not False or",
        "False or",
        "tests/config/test_extensions.py",
    ),
    "tasks of a package found in one folder only": Mutant(
        "config/locations.py",
        "if added is not None and _is_local(added[1]):",
        "if False:",
        "tests/training/test_installed_source.py",
    ),
}


def outcome_over(source: Path, tests: str) -> int:
    """Run ``tests`` over the package below ``source``; return the exit code of pytest."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", tests],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout[-2000:])
    return done.returncode


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_every_mutant_still_applies(mutant: Mutant) -> None:
    assert (PACKAGE / mutant.file).read_text(encoding="utf-8").count(mutant.right) == 1
    assert (ROOT / mutant.tests).exists()


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_every_mutant_is_noticed(mutant: Mutant, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "plora_cl")
    file = tmp_path / "plora_cl" / mutant.file
    source = file.read_text(encoding="utf-8")
    file.write_text(source.replace(mutant.right, mutant.wrong), encoding="utf-8")
    compile(file.read_text(encoding="utf-8"), file, "exec")
    assert outcome_over(tmp_path, mutant.tests) == pytest.ExitCode.TESTS_FAILED


@pytest.mark.slow
@pytest.mark.parametrize("tests", sorted({mutant.tests for mutant in MUTANTS.values()}))
def test_the_same_tests_are_green_over_a_copy_that_is_not_changed(
    tests: str, tmp_path: Path
) -> None:
    shutil.copytree(PACKAGE, tmp_path / "plora_cl")
    assert outcome_over(tmp_path, tests) == pytest.ExitCode.OK
