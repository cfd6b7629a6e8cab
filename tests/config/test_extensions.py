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

BETWEEN = GOOD.replace(
    "class Mine(ModelSettings):",
    "class Between(ModelSettings):\n    between: int = 1\n\nclass Mine(Between):",
)


def with_more(*lines: str) -> str:
    """Return `GOOD` with more lines in the class of its settings."""
    more = "".join(f"    {line}\n" for line in lines)
    return "import pydantic" + GOOD.replace("\nTECHNIQUE", f"{more}\nTECHNIQUE")


def checking(setting: str) -> str:
    check = f"pydantic.field_validator({setting!r}, check_fields=False)"
    return with_more(f"@{check}", "def check(cls, value): return value")


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
    shown = command(install(tmp_path, GOOD), "train", "--help-all").stdout
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


def test_settings_of_a_base_class_of_its_own_are_its_settings(tmp_path: Path) -> None:
    install(tmp_path, BETWEEN)
    argv = ("train", "--experiment-name", "x", "--set", "between=2", "--tasks", "./none")
    assert "Note: between has no effect here: use_mine is false" in command(tmp_path, *argv).stderr


def test_its_setting_may_be_called_what_another_flag_stands_for(tmp_path: Path) -> None:
    install(tmp_path, GOOD.replace("lambda_mine", "assignments"))
    argv = ("train", "--experiment-name", "x", "--tasks", "./none", "--assignments", "2")
    done = command(tmp_path, *argv, "--set", "epochs=3")
    assert "Note: assignments has no effect here: use_mine is false" in done.stderr
    assert "Traceback" not in done.stderr


YIELDS = "contradictions=lambda s: [{}], strength"
EXPECTED = "; expected a tuple of names of settings, at least one"


@pytest.mark.parametrize(
    ("functions", "reason"),
    [
        ("contradictions=lambda s: s.no_such, strength", "its contradictions: AttributeError: "),
        ("contradictions=lambda s: None, strength", "its contradictions: TypeError: 'NoneType'"),
        (YIELDS.format("'no'"), "its contradictions yield 'no'; expected plora_cl.technique.Contr"),
        (YIELDS.format("Contradiction((), 'no')"), "(settings=(), text='no')" + EXPECTED),
        (YIELDS.format("Contradiction('shared', 'no')"), "text='no')" + EXPECTED),
        (YIELDS.format("Contradiction(('share',), 'no')"), "text='no')" + EXPECTED),
        (YIELDS.format("Contradiction(('shared',), 3)"), "text=3); expected plora_cl.technique."),
        (
            "effectless=(Effectless(lambda s: 1 / 0, 'it is Monday', ('lambda_mine',)),), strength",
            "its rule on settings without effect (it is Monday): ZeroDivisionError: division by",
        ),
        ("require_inputs=lambda s: open(s.missing), strength", "its require_inputs: AttributeErr"),
    ],
)
def test_a_function_of_a_package_that_fails_is_named_in_one_line(
    tmp_path: Path, functions: str, reason: str
) -> None:
    code = GOOD.replace("strength", functions).replace("import Technique", "import *")
    argv = ("train", "--experiment-name", "x", "--lambda-mine", "2", "--tasks", "./none")
    install(tmp_path, code)
    done = command(tmp_path, *argv, "--use-mine")
    assert done.returncode == 2
    *_, told = done.stderr.splitlines()
    assert "package cl-mine, entry point plora_cl.methods: mine = mine:TECHNIQUE: " in told
    assert reason in told
    assert "Traceback" not in done.stderr
    if "rule" not in reason:
        assert reason not in command(tmp_path, *argv).stderr


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
        ("TECHNIQUE = 3", "is an int; expected a plora_cl.technique.Technique"),
        (GOOD.replace('name="mine"', 'name="ewc"'), "'ewc' is taken"),
        (GOOD.replace("= False", "= True"), "use_mine has to be off by default"),
        (GOOD.replace("lambda_mine:", "lambda_ewc:"), "names lambda_mine, and"),
        (
            GOOD.replace(
                "strength", "effectless=(Effectless(bool, 'x', ('no',)),), strength"
            ).replace("import Technique", "import *"),
            "mine names no, and its settings have no such field",
        ),
        (GOOD.replace("lambda_mine", "lambda_ewc"), "'lambda_ewc' has the name of another one"),
        (GOOD.replace("lambda_mine", "overwrite"), "'overwrite' takes a flag that exists"),
        ("raise SystemExit(0)", "cannot be imported: SystemExit: 0"),
        (GOOD.replace(" = 0.5", ""), "its setting 'lambda_mine' has no default"),
        (GOOD.replace("0.5", "-1"), "the default of lambda_mine is -1.0: Input should be greater"),
        (with_more("other: float = float('inf')"), "the default of other is inf, which no record"),
        (with_more("other: set[int] = {1}"), "the default of other is {1}, which no record"),
        (
            with_more("other: list[int] = (1,)"),
            "the default of other is (1,) and reads back as [1]",
        ),
        (GOOD.replace('flags={"lambda_mine": "STRENGTH"}', "flags=None"), "its flags is None: "),
        (GOOD.replace('name="mine"', "name=5"), "its name is 5: Input should be a valid string"),
        (GOOD.replace('"mine:build"', "print"), "its factory is <built-in function print>: "),
        (GOOD.replace("lambda_mine", "learning_rate"), "'learning_rate' has the name of another"),
        (BETWEEN.replace("between:", "learning_rate:"), "'learning_rate' has the name of another"),
        (GOOD.replace("use_mine:", 'shared: str = "all"\n    use_mine:'), "redefine 'shared'"),
        (checking("epochs"), "its check checks or changes 'epochs', which is not"),
        (checking("*"), "its check checks or changes '*', which is not"),
        (
            with_more("@pydantic.model_validator(mode='after')", "def double(self): return self"),
            "its double acts on all settings of every run",
        ),
        (
            with_more("model_config = {'extra': 'allow'}"),
            "have a model_config of their own; remove it",
        ),
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
    [("path = mine:open", "the name is taken"), ("tabs = mine:NUMBER", "is an int; expected")],
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
