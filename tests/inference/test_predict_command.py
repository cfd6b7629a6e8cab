"""``plora-cl predict`` in real processes, and its mistakes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cli.closed_pipe import PLORA_CL
from cli.test_main import imported_by
from plora_cl import load_experiment
from plora_cl.cli.main import main
from plora_cl.cli.predict.progress import progress_line
from plora_cl.inference.files.job import FileProgress

PAGE = Path(__file__).parents[2] / "docs" / "predict.md"
HEAVY = {"torch", "transformers", "datasets", "peft"}


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the experiment as ``experiments/demo``, and texts."""
    monkeypatch.chdir(tmp_path)
    Path("experiments").mkdir()
    Path("experiments/demo").symlink_to(folder)
    Path("texts.jsonl").write_text('{"text": "a hot bowl"}\n{"text": "sweet juice"}\n', "utf-8")
    Path("mails.csv").write_text("subject,body\ncat,a purr\ndog,\n", "utf-8")
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        code = main(["predict", *argv])
    except SystemExit as end:
        code = int(str(end.code))
    return code, *capsys.readouterr()


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_every_command_of_the_page_runs(here: Path) -> None:
    assert len(commands()) == 4
    shown = []
    for command in commands():
        typed = command.replace("plora-cl", shlex.join(PLORA_CL), 1)
        done = subprocess.run(
            ["bash", "-c", typed], capture_output=True, text=True, check=False, cwd=here
        )
        assert done.returncode == 0, done.stderr
        shown.append(done.stdout)
    expected = load_experiment("experiments/demo").predict(["the soup was hot"], "food")[0]
    assert f"{expected.label}" in shown[0]
    assert [one["text"] for one in json.loads(shown[1])["predictions"]] == [
        "the soup was hot",
        "a wet cloud",
    ]
    assert (here / "labels.parquet").is_file()
    lines = [json.loads(line) for line in (here / "labels.jsonl").read_text("utf-8").splitlines()]
    assert [line["task"] for line in lines] == ["food", "food"]


def test_flags_may_come_before_the_texts_and_doubt_is_shown(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--device", "cpu", "--task", "food"]
    code, out, _ = call(capsys, "experiments/demo", *flags, "a hot bowl", "sweet juice")
    assert code == 0
    assert out.count("\n") == 5
    texts = ["the cat", "wet cloud", "sweet juice", "a", "my day", "meow bark wet"]
    code, out, _ = call(capsys, "experiments/demo", *texts)
    found = load_experiment("experiments/demo").predict(texts)
    assert [("doubtful" in line) for line in out.splitlines()[3:]] == [
        one.abstained for one in found
    ]


def test_a_killed_command_continues_and_ends_with_the_same_bytes(here: Path) -> None:
    rows = 1500
    Path("many.jsonl").write_text('{"text": "the cat with the bone"}\n{"text": "wet"}\n' * rows)
    command = [*PLORA_CL, "predict", "experiments/demo", "--input", "many.jsonl", "--output"]
    killed, journal = Path("killed.csv"), Path("killed.csv.partial")
    child = subprocess.Popen([*command, str(killed), "--batch-size", "4"], stderr=-3)
    ends = time.monotonic() + 120
    while time.monotonic() < ends and (not journal.exists() or journal.stat().st_size < 30_000):
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not killed.exists()
    assert journal.exists()
    for output in (killed, Path("whole.csv")):
        again = [*command, str(output), "--batch-size", "4"]
        done = subprocess.run(again, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert killed.read_bytes() == Path("whole.csv").read_bytes()
    assert killed.read_bytes().count(b"\n") == 2 * rows + 1
    assert not journal.exists()


def test_an_output_of_another_checkpoint_is_refused_and_the_way_out_is_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out.jsonl.partial").write_text(
        '{"format": "plora-cl predict 1", "of": {"checkpoint": "checkpoint_task0_epoch0_batch9.pt '
        '(SHA-256 00)"}}\n',
        "utf-8",
    )
    flags = ["--input", "texts.jsonl", "--output", "out.jsonl"]
    code, _, err = call(capsys, "experiments/demo", *flags)
    assert code == 2
    assert "with checkpoint checkpoint_task0_epoch0_batch9.pt (SHA-256 00)" in err
    assert "start anew with --overwrite" in err
    assert call(capsys, "experiments/demo", *flags, "--overwrite")[0] == 0
    assert call(capsys, "experiments/demo", *flags)[0] == 2


def test_rows_without_a_text_are_exit_code_1_and_one_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.csv").write_text("text\ncat\n \n", "utf-8")
    flags = ["--input", "a.csv", "--output", "-", "--format", "csv", "--task", "animals"]
    code, out, err = call(capsys, "experiments/demo", *flags)
    assert code == 1
    assert len(out.splitlines()) == 3
    assert "1 row without a prediction; the first: a.csv:3: empty text" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("experiments/demo", "give a text to predict, or --input FILE"),
        ("experiments/demo a --input b.csv", "give texts or --input, not both"),
        ("experiments/demo a --output b.csv", "--output needs --input FILE"),
        ("experiments/demo --input mails.csv", "--input needs --output FILE, or --output -"),
        (
            "experiments/demo --input mails.csv --output a.txt",
            "expected a name that ends in .jsonl",
        ),
        ("experiments/demo --input mails.txt --output a.csv", "expected a file of .jsonl, .csv"),
        ("experiments/demo --input gone.csv --output a.csv", "there is no file gone.csv"),
        ("experiments/demo --input mails.csv --output mails.csv", "is the input"),
        ("experiments/demo --input mails.csv --output a/b.csv", "there is no folder a"),
        ("experiments/demo a --task foods", "did you mean 'food'?"),
        ("experiments/demo a --checkpoint x.pt", "see: plora-cl checkpoints list"),
        ("experiments/dema a", "did you mean experiments/demo?"),
        ("experiments/demo a --batch-size 0", "'0' is not a number from 1 on"),
        ("experiments/demo a --taks food", "did you mean --task?"),
    ],
)
def test_a_mistake_is_one_line(
    here: Path, arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, *shlex.split(arguments))
    assert code == 2
    assert message in err
    assert err.startswith("Error:")
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.parametrize("arguments", ["a --task foods", "--input gone.csv --output a.csv"])
def test_a_mistake_is_answered_before_torch_is_imported(here: Path, arguments: str) -> None:
    argv = ["predict", "experiments/demo", *shlex.split(arguments)]
    code, _, loaded = imported_by(*argv, stream="stderr")
    assert code == 2
    assert not loaded & HEAVY


def test_a_run_without_a_router_says_which_tasks_to_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = min((folder / "checkpoints").glob("*task0*"))
    code, _, err = call(capsys, str(folder), "a day", "--checkpoint", first.name)
    found = load_experiment(folder, first)
    assert (code == 0) == found.infers_tasks
    if code:
        assert "name one of animals with --task" in err
    later = call(capsys, str(folder), "a day", "--checkpoint", first.name, "--task", "food")
    assert later[0] == 2
    assert "(the run learns it later)" in later[2]


def test_the_help_fits_a_screen_and_ends_with_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, out, _ = call(capsys, "--help")
    lines = out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("  plora-cl predict") for line in lines[-4:])


def test_progress_says_how_far_and_how_long() -> None:
    assert progress_line(FileProgress(200, 100, 0.5), 10.0) == (
        "200 rows, 50% of the file read, 10.0 rows/s, 0:00:20 left"
    )
    assert progress_line(FileProgress(200, 0, None), 10.0) == "200 rows, 20.0 rows/s"


def test_a_folder_without_checkpoints_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    code, _, err = call(capsys, str(tmp_path / "run"), "a")
    assert code == 2
    assert "no checkpoint in" in err
    shutil.rmtree(tmp_path / "run")
