"""``plora-cl`` itself: finds commands, answers fast."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from plora_cl.cli.main import COMMANDS, main

HEAVY = ("torch", "transformers", "datasets", "peft", "pydantic", "numpy", "rich")


def imported_by(*argv: str, stream: str = "stdout") -> tuple[int, str, set[str]]:
    """Run the command in a fresh interpreter; return exit code, a stream and heavy imports."""
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
    *err, loaded = done.stderr.splitlines()
    shown = done.stdout if stream == "stdout" else "\n".join(err)
    return done.returncode, shown, {name for name in HEAVY if f"'{name}'" in loaded}


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


@pytest.mark.parametrize("module", ["plora_cl.cli.train", "plora_cl.cli.train.command"])
def test_the_module_is_the_same_command(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--set", "lora.r=3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "Error: --set: lora.r: unknown setting; did you mean lora_r?\n"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["trian"], "unknown command 'trian'; did you mean train?"),
        (["flor"], "unknown command 'flor'; did you mean floor?"),
        (["x"], "unknown command 'x'; there are train, "),
        (["checkpoints", "lst"], "unknown command 'lst'; did you mean list?"),
        (["train", "--epoch", "3"], "unrecognized arguments: --epoch 3; did you mean --epochs?"),
        (["train", "--no-ecw"], "unrecognized arguments: --no-ecw; did you mean --no-ewc?"),
        (["train", "--max-length", "64"], "did you mean --set max_length=64?"),
        (["train", "--max_lenght=64"], "did you mean --set max_length=64?"),
        (["study", "x.yaml", "--dryrun"], "did you mean --dry-run?"),
        (["checkpoints", "list", "--jsno", "x"], "did you mean --json?"),
        (["train", "--frobnicate"], "unrecognized arguments: --frobnicate (see plora-cl train"),
        (["train", "--version"], "unrecognized arguments: --version (see plora-cl train"),
        (["train", "--use-mean-anchor"], "arguments: --use-mean-anchor (see plora-cl train"),
        (["checkpoints", "diff", "a"], "required: SECOND"),
    ],
)
def test_a_mistyped_command_or_flag_is_told_what_was_perhaps_meant(
    argv: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ")
    assert text in line


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["train", "--tasks", "no/where"], "task 'where': no/where is not a folder"),
        (["train", "--tasks", "{path: empty}"], "no train split in empty"),
        (["train", "--tasks", "{path: blank}"], "blank/train.csv: the train split has no rows"),
        (
            ["train", "--tasks", "{path: mails, text_column: body}"],
            "no column 'body'; it has text, label",
        ),
        (
            ["train", "--tasks", "mails/", "--model-name", "/no/model"],
            "'/no/model' is not a folder",
        ),
        (["train", "--tasks", "mails/", "--model-name", "empty"], "no config.json in 'empty'"),
        (["floor", "--tasks", "no/where"], "task 'where': no/where is not a folder"),
        (["study", "p.yaml", "--dry-run"], "task 'where': no/where is not a folder"),
        (["study", "p.yaml"], "task 'where': no/where is not a folder"),
    ],
)
def test_what_is_not_there_is_told_before_anything_heavy_is_imported(
    argv: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, content in (("mails", "text,label\na b,x\nc d,y\n"), ("blank", "text,label\n")):
        Path(folder).mkdir()
        for split in ("train", "test"):
            Path(folder, f"{split}.csv").write_text(content)
    Path("empty").mkdir()
    Path("p.yaml").write_text("name: p\nbase: {tasks: [no/where]}\nmethods: [plain]\nseeds: [1]\n")
    code, err, heavy = imported_by(*argv, stream="stderr")
    assert code == 2
    assert err.startswith("Error: ")
    assert text in err
    assert len(err.splitlines()) == 1
    assert not heavy & {"torch", "transformers", "datasets", "peft"}
    assert not Path("experiments", "default").exists()


ODD_NAMES = ["", "loop", "a" * 5000, "\udcff", "~nobody/x", "/proc/1/mem", "d"]
NAMED = [
    ["train", "--tasks"],
    ["train", "--config"],
    ["train", "--preset"],
    ["train", "--resume"],
    ["train", "--model-name", "/", "--experiment-dir"],
    ["train", "--model-name", "/", "--experiment-name"],
    ["train", "--model-name", "/", "--max-time", "1", "--set"],
    ["floor", "--model-name", "/", "--config"],
    ["study"],
    ["checkpoints", "list"],
    ["checkpoints", "fork", "nothing"],
    ["checkpoints", "import", "nothing"],
    ["checkpoints", "export", "nothing", "--out"],
]
ODD_MODELS = ["loop", "~nobody/x", "/proc/1/mem", "d"]
"""Odd names of a model; any other may be a model on the hub."""


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        *((argv, name) for argv in NAMED for name in ODD_NAMES),
        *((["train", "--model-name"], name) for name in ODD_MODELS),
    ],
)
def test_odd_names_are_refused_in_lines_without_a_traceback(
    argv: list[str],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("loop").symlink_to("loop")
    Path("d").mkdir()
    command = [*argv, name, *(["--tasks", "d/"] if argv[0] == "train" else [])]
    try:
        code = main(command)
    except SystemExit as end:
        code = int(str(end.code))
    assert code in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith(("Error: ", "Note: ")) for line in lines)


def test_what_is_logged_is_a_line_that_begins_with_warning() -> None:
    code = (
        "import logging\n"
        "from plora_cl.cli.exit import exit_code\n"
        "exit_code(lambda: logging.getLogger('plora_cl.data').warning('%d texts', 3))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "Warning: 3 texts\n"


@pytest.mark.parametrize(
    "argv", [["floor"], ["study"], ["checkpoints", "inspect"], ["checkpoints", "fork"]]
)
def test_the_description_of_a_command_is_wrapped(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*argv, "--help"])
    _, description, *_ = capsys.readouterr().out.split("\n\n")
    assert all(len(line) < 80 for line in description.splitlines())
