"""The example of docs/study.md and the measured comparison, as written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from plora_cl.cli.study.command import main, study_parser
from plora_cl.cli.train.flags import train_parser
from plora_cl.config.learners import LEARNERS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]
PARSERS = {"study": study_parser, "train": train_parser}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command: str) -> None:
    program, name, *arguments = shlex.split(command)
    assert program == "plora-cl"
    assert vars(PARSERS[name]().parse_args(arguments))


def test_the_example_is_a_list_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("eight-runs.yaml").write_text(EXAMPLE, encoding="utf-8")
    without_tuning = re.sub(r"^tune:.*", "", EXAMPLE, flags=re.DOTALL | re.MULTILINE)
    Path("fixed.yaml").write_text(without_tuning, encoding="utf-8")
    assert main(["fixed.yaml", "--dry-run"]) == 0
    listed = capsys.readouterr().out.splitlines()
    # Where there are no adapters to compose there is one run, elsewhere two.
    assert listed[-1].startswith("102 runs in ")
    assert "joint__wide-first__seed3" in listed
    assert "no-replay__narrow-first__cumulative__seed1" in listed
    assert main(["eight-runs.yaml", "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("file", "total", "one"),
    [
        ("eight-runs", "45 runs after 20 trials", "no-lateral-no-ewc__order-4__cumulative__seed3"),
        ("defaults", "12 runs after 15 trials", "ewc__order-4__seed4"),
    ],
)
def test_the_measured_comparisons_are_lists_of_runs(
    capsys: pytest.CaptureFixture[str], file: str, total: str, one: str
) -> None:
    assert main([str(ROOT / "benchmarks" / f"{file}.yaml"), "--dry-run"]) == 2  # without the data
    listed = capsys.readouterr().out.splitlines()
    assert listed[-1].startswith(total)
    assert one in listed


def test_every_learner_is_explained() -> None:
    section = TEXT.partition("## Learners")[2].partition("##")[0]
    assert set(LEARNERS) <= set(re.findall(r"`([a-z-]+)`", section))
