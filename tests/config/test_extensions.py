"""Installed packages that declare a technique: as it should be, and broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from plora_cl.extensions import METHODS, SOURCES

GOOD = '''
from typing import Annotated
from plora_cl.impact import Impact
from plora_cl.model.settings import ModelSettings
from plora_cl.setting_types import NotNegative, Switch
from plora_cl.technique import Technique

class Mine(ModelSettings):
    use_mine: Annotated[Switch, Impact.STRUCTURAL] = False
    """Does what I want."""
    lambda_mine: Annotated[NotNegative, Impact.TRAJECTORY] = 0.5
    """How much of it."""

TECHNIQUE = Technique(
    name="mine", title="mine", settings=Mine, switch="use_mine", factory="mine:build",
    flags={"lambda_mine": "STRENGTH"}, strength="lambda_mine",
)
'''


def install(
    folder: Path, code: str, entry_point: str = "mine = mine:TECHNIQUE", group: str = METHODS
) -> Path:
    """Put a module and the metadata of its package where an installer would."""
    folder.mkdir(exist_ok=True)
    module = entry_point.partition(" = ")[2].partition(":")[0]
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    metadata = folder / "cl_mine-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: cl-mine\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{entry_point}\n")
    return folder


def command(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), *sys.path])
    return subprocess.run(
        [sys.executable, "-m", "plora_cl.cli.main", *argv],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_its_settings_are_in_the_help(tmp_path: Path) -> None:
    shown = command(install(tmp_path, GOOD), "train", "--help").stdout
    assert "--lambda-mine STRENGTH" in shown
    assert "Does what I want. (default: false)" in shown
    assert "--no-mine" in shown


def test_its_settings_obey_the_rules_of_all_settings(tmp_path: Path) -> None:
    def refusal(*argv: str) -> str:
        done = command(tmp_path, "train", "--experiment-name", "x", *argv)
        assert done.returncode == 2
        return done.stderr

    install(tmp_path, GOOD)
    assert "--lambda-mine: '-1'; expected at least 0" in refusal("--lambda-mine", "-1")
    assert "--set: lambda_mien: unknown setting; did you mean lambda_mine?" in refusal(
        "--set", "lambda_mien=1"
    )
    zero = refusal("--use-mine", "--lambda-mine", "0")
    assert "lambda_mine is 0, so use_mine could have no effect" in zero
    assert "(use_mine: false / --no-mine)" in zero
    assert "use_mine could have no effect; switch off what is on (--no-mine)" in refusal(
        "--use-mine", "--joint", "--no-ewc"
    )
    (tmp_path / "mine.yaml").write_text("lambda_mine: many\n")
    assert "mine.yaml: lambda_mine: 'many'; expected a number" in refusal("--config", "mine.yaml")


def test_a_setting_of_a_technique_that_is_off_gets_a_note(tmp_path: Path) -> None:
    argv = ("train", "--experiment-name", "x", "--lambda-mine", "2", "--tasks", "./none")
    done = command(install(tmp_path, GOOD), *argv)
    assert "Note: lambda_mine has no effect here: use_mine is false" in done.stderr


def test_a_study_can_tune_its_strength(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "name: p\nmethods: [plain]\nseeds: [1]\ntune: {lambda_mine: [1, 2], lambda_min: [1]}\n"
    )
    done = command(install(tmp_path, GOOD), "study", "p.yaml", "--dry-run")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "tune.lambda_min: unknown key; did you mean lambda_mine?" in done.stderr


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import there_is_no_such_module", "cannot be imported: ModuleNotFoundError: No module"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("TECHNIQUE = 3", "is a int; expected a plora_cl.technique.Technique"),
        (GOOD.replace('name="mine"', 'name="ewc"'), "'ewc' is taken"),
        (GOOD.replace("= False", "= True"), "use_mine has to be off by default"),
        (GOOD.replace("lambda_mine:", "lambda_ewc:"), "names lambda_mine, and"),
        (GOOD.replace("lambda_mine", "lambda_ewc"), "'lambda_ewc' has the name of another one"),
        (GOOD.replace("lambda_mine", "overwrite"), "'overwrite' takes a flag that exists"),
    ],
)
def test_a_broken_package_is_named_in_one_line(tmp_path: Path, code: str, reason: str) -> None:
    done = command(install(tmp_path, code), "train", "--help")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert reason in done.stderr
    assert "package cl-mine, entry point plora_cl.methods: mine = mine:TECHNIQUE" in done.stderr


@pytest.mark.parametrize(
    ("entry_point", "reason"),
    [("path = mine:open", "the name is taken"), ("tabs = mine:NUMBER", "is a int; expected")],
)
def test_a_broken_source_is_named_in_one_line(
    tmp_path: Path, entry_point: str, reason: str
) -> None:
    install(tmp_path, "NUMBER = 3\ndef open(declared): ...\n", entry_point, SOURCES)
    done = command(tmp_path, "train", "--experiment-name", "x", "--tasks", "tabs:here")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"package cl-mine, entry point plora_cl.sources: {entry_point}: {reason}" in done.stderr


def test_a_broken_package_stops_no_command_that_reads_no_settings(tmp_path: Path) -> None:
    install(tmp_path, "1 / 0")
    for argv in (("--help",), ("checkpoints", "list", "--help"), ("checkpoints", "list", ".")):
        assert "ZeroDivisionError" not in command(tmp_path, *argv).stderr
