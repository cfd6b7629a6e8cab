"""``plora-cl`` itself: finds commands, answers fast."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from plora_cl.cli.main import COMMANDS, main

HEAVY = ("torch", "transformers", "datasets", "peft", "pydantic", "numpy", "rich")


def imported_by(*argv: str) -> tuple[int, str, set[str]]:
    """Run the command in a fresh interpreter; return exit code, stdout and heavy imports."""
    program = (
        "import sys\n"
        "from plora_cl.cli.main import main\n"
        "try:\n"
        "    code = main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *argv], capture_output=True, text=True, check=False
    )
    loaded = done.stderr.splitlines()[-1]
    return done.returncode, done.stdout, {name for name in HEAVY if f"'{name}'" in loaded}


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code, out, heavy = imported_by("--help")
    assert code == 0
    words = " ".join(out.split())
    assert all(f" {name} {purpose}" in words for name, (_, purpose) in COMMANDS.items())
    assert heavy == set()


def test_a_typo_in_a_flag_is_refused_before_torch_is_imported() -> None:
    code, _, heavy = imported_by("train", "--epochs", "many")
    assert code == 2
    assert "pydantic" in heavy
    assert not heavy & {"torch", "transformers", "datasets", "peft"}


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"plora-cl {version('plora-cl')}\n"


def test_without_a_command_the_help_is_shown_and_the_exit_code_is_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    assert "usage: plora-cl" in capsys.readouterr().out


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["trian"])
    assert end.value.code == 2
    assert "trian" in capsys.readouterr().err


def test_flags_after_the_command_belong_to_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "--help"])
    assert end.value.code == 0
    assert "usage: plora-cl train" in capsys.readouterr().out


def test_the_module_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "plora_cl.cli.train", "--set", "lora.r=3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "Error: --set: lora.r: unknown setting; did you mean lora_r?\n"
