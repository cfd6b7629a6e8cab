"""Help fits a screen and ends with an example; mistakes are answered at once, in one line."""

from __future__ import annotations

import os
import pty
import re
import resource
import select
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from cli.test_main import imported_by
from plora_cl.cli.checkpoints.main import COMMANDS as CHECKPOINTS
from plora_cl.cli.main import COMMANDS, main
from plora_cl.cli.parser import parser_of
from plora_cl.cli.train.flags import floor_parser, train_parser

EVERY = [
    [],
    *([name] for name in COMMANDS),
    *(["checkpoints", name] for name in CHECKPOINTS),
]


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit, match="0"):
        main([*argv, "--help"])
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("argv", EVERY, ids=" ".join)
def test_the_help_fits_a_screen_and_ends_with_an_example(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(capsys, *argv).splitlines()
    assert len(lines) <= 23  # and the next prompt
    assert max(map(len, lines)) <= 80
    ending = "\n".join(lines).rpartition("example:")[2]
    assert all(line.strip().startswith("plora-cl ") for line in ending.strip().splitlines())


def examples(text: str) -> list[list[str]]:
    lines = text.rpartition("example:")[2].strip().splitlines()
    return [shlex.split(line.partition(" > ")[0], comments=True)[1:] for line in lines]


@pytest.mark.parametrize("argv", [argv for argv in EVERY if len(argv) == 1], ids=" ".join)
def test_every_example_is_understood(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for example in examples(shown(capsys, *argv)):
        assert example[0] == argv[0]
        if argv != ["checkpoints"]:
            parser_of(COMMANDS[argv[0]][0], argv[0]).parse_args(example[1:])


@pytest.mark.parametrize("command", ["train", "floor"])
def test_the_short_help_names_only_flags_that_there_are(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    built = train_parser() if command == "train" else floor_parser()
    named = set(re.findall(r"--[a-z][a-z-]*", shown(capsys, command)))
    assert named <= {flag for action in built._actions for flag in action.option_strings}
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help-all"])
    whole = capsys.readouterr().out
    for action in built._actions:
        if action.help != "==SUPPRESS==":
            assert action.option_strings[0] in whole


WRONG = [
    ["train", "--config", "no.yaml"],
    ["train", "--tasks", "no/where"],
    ["train", "--model-name", "/no/model", "--tasks", "mails/"],
    ["train", "--experiment-name", "none", "--resume"],
    ["train", "--resume", "no/checkpoint_task0_epoch0_batch0.pt"],
    ["train", "--tasks", "no/where", "--dry-run"],
    ["floor", "--tasks", "no/where"],
    ["study", "no.yaml"],
    ["init", "no/where.yaml"],
    ["settings", "nothing"],
    ["results", "no/where"],
    ["status", "no/where"],
    ["evaluate", "no/where", "a.csv", "--task", "a"],
    ["add-task", "no/where", "--task", "mails"],
    ["add-task", "no/where", "--task", "mails", "--tolerance", "2"],
    ["predict", "no/where", "a text"],
    ["predict", "no/where", "--input", "no.csv", "--output", "labels.csv", "--format", "json"],
    ["export", "no/where", "--task", "a", "--format", "tf", "--out", "model"],
    ["export", "no/where", "--task", "a", "--format", "peft", "--out", "model"],
    ["serve", "no/where"],
    ["serve", "no/where", "--port", "-1"],
    ["report", "no/where"],
    ["cache", "remove"],
    ["completion", "csh"],
    *(["checkpoints", name, "no/where"] for name in ("list", "inspect", "verify", "gc", "pin")),
    ["checkpoints", "diff", "no/where", "no/where"],
    ["checkpoints", "import", "no.tar", "here"],
]


@pytest.mark.parametrize("argv", WRONG, ids=" ".join)
def test_a_mistake_is_answered_in_one_line_within_a_second_of_work(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mails").mkdir()
    for split in ("train", "test"):
        Path("mails", f"{split}.csv").write_text("text,label\na b,x\nc d,y\n")

    def work() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = work()
    code, err, heavy = imported_by(*argv, stream="stderr")
    assert code in (1, 2)  # 1 where a bundle is damaged, or not there
    assert err.startswith("Error: ")
    assert len(err.splitlines()) == 1
    assert not heavy & {"torch", "transformers", "datasets", "peft"}
    assert work() - before < 1.5  # of a processor; about 0.5


@pytest.mark.parametrize("place", [0, 1, 3])
def test_debug_shows_the_traceback_wherever_it_stands(
    place: int, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["results", "no/where"]
    argv.insert(place, "--debug")
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1].startswith("Error: no/where is no experiment")
    assert main(["results", "no/where"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def completed(*words: str, script: Path) -> list[str]:
    """Return what bash offers for the last of ``words``."""
    program = (
        f"source {shlex.quote(str(script))}\n"
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _plora_cl\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    command = ["bash", "-c", program, "bash", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands_flags_values_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("experiments").mkdir()
    assert main(["completion", "bash"]) == 0
    script = Path("plora-cl.bash")
    script.write_text(capsys.readouterr().out)
    assert completed("plora-cl", "", script=script) == list(COMMANDS)
    assert completed("plora-cl", "che", script=script) == ["checkpoints"]
    assert set(CHECKPOINTS) <= {*completed("plora-cl", "checkpoints", "", script=script)}
    assert completed("plora-cl", "checkpoints", "list", "--j", script=script) == ["--json"]
    assert completed("plora-cl", "train", "--ep", script=script) == ["--epochs"]
    assert completed("plora-cl", "train", "--epochs", "3", "--res", script=script) == ["--resume"]
    assert completed("plora-cl", "train", "--precision", "b", script=script) == ["bf16"]
    assert completed("plora-cl", "train", "--preset", "q", script=script) == ["quickstart"]
    assert completed("plora-cl", "cache", "cl", script=script) == ["clear"]
    assert completed("plora-cl", "export", "--format", "p", script=script) == ["peft"]
    assert completed("plora-cl", "results", "exp", script=script) == ["experiments"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_commands_flags_and_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "fish"]) == 0
    script = tmp_path / "plora-cl.fish"
    script.write_text(capsys.readouterr().out)
    for typed, offered in (
        ("plora-cl che", "checkpoints"),
        ("plora-cl checkpoints li", "list"),
        ("plora-cl checkpoints list --js", "--json"),
        ("plora-cl train --learning", "--learning-rate"),
        ("plora-cl train --precision b", "bf16"),
    ):
        program = f"source {shlex.quote(str(script))}; complete -C {shlex.quote(typed)}"
        done = subprocess.run(["fish", "-c", program], capture_output=True, text=True, check=True)
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [offered]


def read_until(text: str, terminal: int) -> str:
    """Return what a terminal shows until ``text`` is there, or nothing more comes."""
    shown = ""
    while text not in shown and select.select([terminal], [], [], 20)[0]:
        shown += os.read(terminal, 4096).decode()
    return shown


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [("plora-cl che", "plora-cl checkpoints"), ("plora-cl train --precision b", "bf16")],
)
def test_zsh_completes_at_the_first_key_press(
    typed: str, offered: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "zsh"]) == 0
    (tmp_path / "_plora-cl").write_text(capsys.readouterr().out)
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {**os.environ, "TERM": "dumb", "PS1": "", "COLUMNS": "200"}
        os.execvpe("zsh", ["zsh", "-f", "-i"], environment)
    found = f"fpath=({tmp_path} $fpath); autoload -U compinit; compinit -u -D; print rea''dy\n"
    os.write(terminal, found.encode())
    read_until("ready", terminal)
    os.write(terminal, f"{typed}\t".encode())
    shown = read_until(offered, terminal)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(terminal)
    assert offered in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_script_has_every_command_and_is_read_by_its_shell(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    for name in (*COMMANDS, *CHECKPOINTS, "learning-rate"):
        assert name in script.read_text()
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(script)], check=True)
