"""The commands of the README and the example of the users' guide, as written."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from plora_cl.cli.main import main
from plora_cl.cli.study.command import study_parser
from plora_cl.cli.train.flags import floor_parser, train_parser
from plora_cl.quickstart import how_to_install

README = Path(__file__).parents[1] / "README.md"
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
TRAINING = [command for command in COMMANDS if "plora-cl train" in command]


def arguments(command: str) -> list[str]:
    return shlex.split(command.partition("plora-cl train")[2])


def test_there_are_commands_to_run() -> None:
    assert len(TRAINING) >= 3
    assert any("pytest" in command.split() for command in COMMANDS)


@pytest.mark.parametrize("command", [c for c in TRAINING if "--help" not in c])
def test_every_flag_of_a_training_command_is_known(command: str) -> None:
    assert vars(train_parser().parse_args(arguments(command)))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("plora-cl ")])
def test_every_flag_of_a_command_is_in_its_help(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *given = shlex.split(command)[1:]
    everything = "--help-all" if name in ("train", "floor") else "--help"
    with pytest.raises(SystemExit, match="0"):
        main([name, everything])
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in given if flag.startswith("--"))


def test_the_command_that_compares_methods_is_known() -> None:
    (command,) = [command for command in COMMANDS if "plora-cl study" in command]
    assert vars(study_parser().parse_args(shlex.split(command)[2:]))


def test_pip_installs_what_the_extra_has_and_nothing_that_it_depends_on() -> None:
    extra = tomllib.loads((README.parent / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = set(extra["project"]["optional-dependencies"]["quickstart"])
    (plain,) = [c for c in COMMANDS if c.startswith("pip install . ")]
    (alone,) = [c for c in COMMANDS if c.startswith("pip install --no-deps ")]
    assert {*shlex.split(plain)[3:], *shlex.split(alone)[3:]} == wanted
    for pinned in shlex.split(alone)[3:]:
        assert f"pip install --no-deps {pinned}, " in how_to_install(pinned.partition("==")[0])
    unwanted = {f"{m['name']}=={m['version']}" for m in extra["tool"]["uv"]["dependency-metadata"]}
    assert set(shlex.split(alone)[3:]) == unwanted


def test_the_command_for_the_floor_is_known() -> None:
    (command,) = [command for command in COMMANDS if "plora-cl floor" in command]
    assert vars(floor_parser().parse_args(shlex.split(command)[2:]))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_quickstart_runs_and_its_resume_trains_no_step(tmp_path: Path) -> None:
    first, resume = TRAINING[0], TRAINING[1]
    for command, expected in ((first, "average accuracy"), (resume, "already learned")):
        outcome = subprocess.run(
            [sys.executable, "-m", "plora_cl.cli.train.command", *arguments(command)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert outcome.returncode == 0, outcome.stderr
        assert expected in outcome.stdout
    results = tmp_path / "experiments" / "quickstart" / "results" / "final_results.json"
    written = json.loads(results.read_text(encoding="utf-8"))["methods"]["replay"]
    assert [sorted(earlier) for earlier in written.values()] == [
        ["bbc_news"],
        ["bbc_news", "reuters_r8"],
    ]
    assert all(text["kept"] > 0 for earlier in written.values() for text in earlier.values())
