"""docs/checkpoint-library.md: its program runs, resumes, and takes as few lines as it says."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from plora_cl.checkpoint import load_checkpoint
from plora_cl.state_digest import state_digest
from warm import Interpreter

ROOT = Path(__file__).parents[2]
MOST_LINES, MOST_FOR_TRAINER = 25, 35


def program() -> str:
    page = (ROOT / "docs" / "checkpoint-library.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_program_of_the_page_runs_and_resumes_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, half = tmp_path / "whole.py", tmp_path / "half.py"
    whole.write_text(program(), encoding="utf-8")
    half.write_text(program().replace("200):", "90):"), encoding="utf-8")
    for script, folder in ((whole, "whole"), (half, "parts"), (whole, "parts")):
        monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / folder)])
        runpy.run_path(str(script))
    one, two = (load_checkpoint(tmp_path / name).snapshot for name in ("whole", "parts"))
    assert one.cursor["step"] == two.cursor["step"] == 200
    assert state_digest(one.state) == state_digest(two.state)


@pytest.mark.parametrize("example", ["raw_pytorch", "transformers_trainer"])
def test_an_example_refuses_other_texts_and_steps_by_name(
    tmp_path: Path, example: str, warm: Interpreter
) -> None:
    script = ROOT / "examples" / f"{example}.py"

    def run(text: str, steps: int, *, cold: bool = False) -> subprocess.CompletedProcess[str]:
        (tmp_path / "text.tsv").write_text("".join(f"{n % 2}\t{text} {n}\n" for n in range(24)))
        argv = [str(tmp_path / "run"), "--text", str(tmp_path / "text.tsv"), "--steps", str(steps)]
        if not cold:
            program = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
            return warm.run(program, *argv, path=[script.parent])
        return subprocess.run(
            [sys.executable, str(script), *argv],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
        )

    done = run("one text", 4, cold=True)
    assert done.returncode == 0, done.stderr
    for text, steps, name in (("another text", 4, "text"), ("one text", 6, "steps")):
        refused = run(text, steps)
        assert refused.returncode != 0, refused.stdout
        assert "IncompatibleCheckpointError" in refused.stderr
        assert re.search(rf"{re.escape(name)}: .+ in the checkpoint, now ", refused.stderr)
    assert load_checkpoint(tmp_path / "run").snapshot.cursor["step"] == 4


def code_lines(text: str) -> list[str]:
    """Return the lines of ``text`` that are not blank, comments or docstrings of one line."""
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith(("#", '"""'))]


def test_what_the_examples_need_for_their_checkpoints_is_short() -> None:
    raw = (ROOT / "examples" / "raw_pytorch.py").read_text(encoding="utf-8")
    losses = raw[raw.index("class Losses") : raw.index("def main")]
    loop = raw[raw.index("    # ----") : raw.rindex("    # ----")]
    assert len(code_lines(losses + loop)) <= MOST_LINES
    trainer = (ROOT / "examples" / "transformers_trainer.py").read_text(encoding="utf-8")
    callback = trainer[trainer.index("class ExactCheckpoints") : trainer.index("def main")]
    assert len(code_lines(callback)) <= MOST_FOR_TRAINER
