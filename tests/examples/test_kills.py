"""The examples under SIGKILL: 20 kills each, at random instants and within saves."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plora_cl.checkpoint import load_checkpoint, verify
from plora_cl.state_digest import state_digest
from training.test_kills import Runs
from warm import Interpreter

EXAMPLES = Path(__file__).parents[2] / "examples"
KILLS = 20
TIMES = {"train_runtime", "train_samples_per_second", "train_steps_per_second"}
STEPS = 12
TOPICS = {"cat": "meow purr whiskers", "dog": "bark leash bone", "rain": "wet cloud umbrella"}


@pytest.fixture(scope="module")
def runs(warm: Interpreter) -> Iterator[Runs]:
    examples = warm.with_modules("raw_pytorch", "transformers_trainer", path=[EXAMPLES])
    yield Runs(examples)
    examples.close()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator, lines = random.Random(0), []
    for row in range(60):
        label = sorted(TOPICS)[row % len(TOPICS)]
        words = generator.choices([*TOPICS[label].split(), "the", "a", "my", "day"], k=12)
        lines.append(f"{label}\t{' '.join(words)}\n")
    path = tmp_path_factory.mktemp("text") / "text.tsv"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def evidence(folder: Path) -> dict[str, str]:
    """Return the digest of each component at the end; wall-clock times do not count."""
    snapshot = load_checkpoint(folder).snapshot
    assert snapshot.cursor["step"] == STEPS
    return {name: state_digest(_untimed(state)) for name, state in snapshot.state.items()}


def _untimed(state: Any) -> Any:
    if "state" not in state or "log_history" not in state["state"]:
        return state
    logged = [
        {name: value for name, value in line.items() if name not in TIMES}
        for line in state["state"]["log_history"]
    ]
    assert "train_loss" in logged[-1]
    return {**state, "state": {**state["state"], "log_history": logged}}


@pytest.mark.fault
@pytest.mark.parametrize("example", ["raw_pytorch", "transformers_trainer"])
def test_an_example_killed_twenty_times_ends_bitwise_like_one_that_was_not(
    tmp_path: Path, runs: Runs, text: Path, example: str
) -> None:
    output = tmp_path / "output.txt"

    def run(name: str, **kill: Any) -> int:
        argv = [str(tmp_path / name), "--text", str(text), "--steps", str(STEPS)]
        script = f"import {example}; {example}.main({argv})"
        return runs.train(argv, output, script=script, **kill)

    whole = 0.0
    for reference in ("first", "reference"):  # the first one imports what is left to import
        began = time.monotonic()
        assert run(reference) == 0, output.read_text()
        whole = time.monotonic() - began
    expected = evidence(tmp_path / "reference")

    generator, killed, chains = random.Random(7), 0, 0
    while killed < KILLS:
        chains += 1
        code: int = -signal.SIGKILL
        while code == -signal.SIGKILL:
            within_saves: dict[str, Any] = {"kill_at": generator.randrange(60)}
            at_any_time: dict[str, Any] = {"kill_after": generator.uniform(0, whole)}
            code = run(f"chain{chains}", **generator.choice([within_saves, at_any_time]))
            killed += code == -signal.SIGKILL
        assert code == 0, output.read_text()
        assert evidence(tmp_path / f"chain{chains}") == expected
        assert verify(tmp_path / f"chain{chains}").is_intact
    assert run("reference") == 0, output.read_text()
    assert evidence(tmp_path / "reference") == expected  # a finished run has nothing left to do
    print(f"{killed} kills over {chains} chains survived, a run takes {whole:.2f} s")
