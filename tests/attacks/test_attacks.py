"""Hostile files are refused with a typed error, in bounded memory, and nothing is executed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NOT_ATTACKS = ("run_all", "trial", "test_attacks")
NAMES = sorted(
    path.stem for path in (TESTS / "attacks").glob("*.py") if path.stem not in NOT_ATTACKS
)
OUT_OF_MEMORY = {"sparse_object"}
"""Not told from an honest object that is too large: the run stops instead of going back in time."""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[int, str]]:
    done = python("-m", "attacks.run_all")
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    return {line["name"]: (line["code"], line["output"]) for line in lines}


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_file_is_refused(name: str, outcomes: dict[str, tuple[int, str]]) -> None:
    code, output = outcomes[name]
    assert code == 0, output
    kind = "CheckpointError: " if name in OUT_OF_MEMORY else "CorruptCheckpointError: "
    assert output.startswith(kind)


def test_an_attack_is_a_script_of_its_own() -> None:
    done = python(str(TESTS / "attacks" / "code_in_pickle.py"))
    assert done.returncode == 0, done.stderr
    assert "its pickle names" in done.stdout
