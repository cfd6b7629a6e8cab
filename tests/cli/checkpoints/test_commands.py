"""Each command of ``plora-cl checkpoints``, on real checkpoints."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cli.checkpoints.calls import DEMO, FIRST, LAST, Calls
from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.checkpoint.snapshot.codec import decode, encode
from plora_cl.checkpoint.snapshot.loading import load
from plora_cl.checkpoint.store.branches import continuation
from plora_cl.checkpoint.store.outgoing import has_list
from plora_cl.checkpoint.store.pins import pinned
from plora_cl.checkpoint.store.replacement import set_aside
from plora_cl.checkpoint.store.retiring import commit, retire
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.comparison import compare
from plora_cl.cli.checkpoints.difference import _shown
from plora_cl.cli.checkpoints.main import COMMANDS

pytestmark = pytest.mark.usefixtures("experiment")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Calls:
    return Calls(capsys)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def adapter(store: CheckpointStore, name: str) -> Path:
    entry = CheckpointEntry.at(store.directory / name)
    return store.objects.path(store.manifest(entry).objects["model/adapter-0"])


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_the_exit_codes(name: str, call: Calls) -> None:
    assert call(name, "--help") == 0
    assert f"plora-cl checkpoints {name} " in call.out.partition("example:")[2]
    assert "exit codes: 0 " in call.out
    assert "--json" in call.out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_usage_error_exits_with_2(name: str, call: Calls) -> None:
    assert call(name) == 2
    (line,) = call.err.splitlines()
    assert line.startswith("Error: ")
    assert line.endswith(f"(see plora-cl checkpoints {name} --help)")


@pytest.mark.parametrize("argv", [[], ["lst"], ["list", "--jsn", DEMO]])
def test_what_is_no_command_exits_with_2(argv: list[str], call: Calls) -> None:
    assert call(*argv) == 2


@pytest.mark.parametrize(
    "target",
    ["nowhere", "experiments", f"nowhere@{FIRST}", f"{DEMO}@checkpoint_task9_epoch0_batch0.pt",
     f"{DEMO}/checkpoints/checkpoint_task9_epoch0_batch0.pt", f"{DEMO}@best.pt", ""],
)  # fmt: skip
@pytest.mark.parametrize("name", ["list", "inspect", "verify", "gc", "pin", "unpin"])
def test_a_target_that_is_not_there_is_one_line_and_exits_with_2(
    name: str, target: str, call: Calls
) -> None:
    assert call(name, target) == 2
    assert call.err.startswith("Error: ")
    assert len(call.err.splitlines()) == 1


def test_a_bundle_that_is_not_there_is_refused_and_leaves_nothing(call: Calls) -> None:
    assert call("import", "none.tar", "experiments/new") == 2
    assert call.err == "Error: none.tar is missing\n"
    assert not Path("experiments/new").exists()


@pytest.mark.parametrize(
    "target", [DEMO, f"{DEMO}/checkpoints", f"{DEMO}@{LAST}", f"{DEMO}/checkpoints/{LAST}"]
)
def test_every_way_to_name_a_checkpoint_leads_to_it(target: str, call: Calls) -> None:
    assert Path(call.json("inspect", target)["path"]) == Path(DEMO, "checkpoints", LAST)


def test_a_folder_without_checkpoints_has_nothing_to_inspect(call: Calls) -> None:
    Path("experiments/empty/checkpoints").mkdir(parents=True)
    assert call.json("list", "experiments/empty")["checkpoints"] == []
    assert call("list", "experiments/empty") == 0
    assert call.json("verify", "experiments/empty")["resumes_from"] is None
    assert call("inspect", "experiments/empty") == 2
    assert "No checkpoint found" in call.err


def test_list_tells_what_each_checkpoint_is_and_costs(
    call: Calls, experiment: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    now = time.time()
    os.utime(experiment.directory / FIRST, (now, now - 7200))
    first, last = call.json("list", DEMO)["checkpoints"]
    assert (first["name"], last["name"]) == (FIRST, LAST)
    assert first["cursor"] == {"task": 0, "epoch": 0, "batch": 10, "step": 10, "phase": "train"}
    assert (first["loss"], first["status"], first["problem"]) == (0.25, "not verified", None)
    assert (first["final"], last["final"]) == (False, True)
    assert first["written"] == pytest.approx(now - 7200)
    size = (experiment.directory / FIRST).stat().st_size
    assert first["file_bytes"] == size
    assert first["unique_bytes"] == size + adapter(experiment, FIRST).stat().st_size
    base = experiment.manifest(experiment.entries()[0]).objects["model/base"]
    assert first["shared_bytes"] == base.bytes
    assert call("list", DEMO) == 0
    row = next(line for line in call.out.splitlines() if FIRST in line)
    assert all(text in row for text in ("task 1 in training", "0.2500", "2 h"))
    assert len(call.json("list", f"{DEMO}@{LAST}")["checkpoints"]) == 1


def test_list_counts_an_object_with_another_name_on_the_disk_as_shared(
    call: Calls, experiment: CheckpointStore, tmp_path: Path
) -> None:
    alone = call.json("list", DEMO)["checkpoints"][0]
    own = adapter(experiment, FIRST)
    (tmp_path / "sibling").hardlink_to(own)
    linked = call.json("list", DEMO)["checkpoints"][0]
    assert linked["unique_bytes"] == alone["unique_bytes"] - own.stat().st_size
    assert linked["shared_bytes"] == alone["shared_bytes"] + own.stat().st_size


def test_list_shows_damage_and_goes_on(call: Calls, experiment: CheckpointStore) -> None:
    (experiment.directory / LAST).write_bytes(b"PK\x05\x06 not a checkpoint")
    adapter(experiment, FIRST).unlink()
    rows = call.json("list", DEMO, code=1)["checkpoints"]
    assert [row["status"] for row in rows] == ["damaged", "damaged"]
    assert "is missing" in rows[0]["problem"]
    assert rows[0]["cursor"]["step"] == 10
    assert rows[1]["cursor"] is None
    assert call("list", DEMO) == 1
    assert call.out.count("damaged") == 4
    assert call.err == ""


def test_list_does_not_call_intact_what_it_has_not_read(
    call: Calls, experiment: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    damage(experiment.directory / FIRST)
    assert call.json("list", DEMO)["checkpoints"][0]["status"] == "not verified"
    assert call("pin", f"{DEMO}@{LAST}") == 0
    assert call("list", DEMO) == 0
    states = {line.split()[0]: line.split("kB")[-1].strip() for line in call.out.splitlines()[3:5]}
    assert {FIRST, LAST} == states.keys()
    assert "ok" not in call.out.split()
    assert states[FIRST].endswith("-")
    assert states[LAST].endswith("pinned, final")
    assert "`plora-cl checkpoints verify` reads every byte" in call.out
    assert call("verify", DEMO) == 1


def test_nothing_in_a_checkpoint_steers_the_terminal(call: Calls, tmp_path: Path) -> None:
    folder = Path("experiments/\x1b[31mred[bold]")
    Path(DEMO).rename(folder)
    assert call("list", str(folder)) == 0
    assert "\x1b" not in call.out
    assert "[31mred[bold]" in call.out


def test_inspect_shows_the_anatomy(call: Calls, experiment: CheckpointStore) -> None:
    document = call.json("inspect", f"{DEMO}@{FIRST}")
    snapshot = decode(experiment.read(experiment.entries()[0]))
    weight = document["components"]["model"]["tensors"]["0.weight"]
    assert weight == {"dtype": "float32", "shape": [4, 5], "bytes": 80}
    assert document["components"].keys() == snapshot.state.keys()
    base = document["objects"]["model/base"]
    assert base["tensors"] == {"weight": {"dtype": "float32", "shape": [2, 3], "bytes": 24}}
    assert base["sha256"] == snapshot.objects["model/base"].sha256
    assert document["settings"] == snapshot.facts.settings
    assert document["environment"] == {"torch": "2"}
    assert document["lineage"] is None
    assert call("inspect", DEMO) == 0
    assert all(text in call.out for text in ("model/base", "lambda_ewc", "torch"))
    assert "0.weight" not in call.out
    assert call("inspect", DEMO, "--tensors") == 0
    assert all(text in call.out for text in ("0.weight", "[4, 5]", "80 B"))


def test_inspect_shows_the_settings_that_have_an_effect(
    call: Calls, experiment: CheckpointStore
) -> None:
    document = call.json("inspect", DEMO)
    assert document["settings"]["use_replay"] is False
    assert "top_p" in document["settings"]
    assert call("inspect", DEMO) == 0
    assert re.search(r"^use_replay +False$", call.out, re.MULTILINE)
    assert "lambda_ewc" in call.out
    assert "top_p" not in call.out
    assert re.search(r"^[0-9]+ settings without effect hidden; --json", call.out, re.MULTILINE)
    snapshot = decode(experiment.read(experiment.entries()[1]))
    facts = replace(snapshot.facts, settings={**snapshot.facts.settings, "of_a_package": 1})
    experiment.commit(LAST, encode(replace(snapshot, facts=facts)))
    assert call("inspect", DEMO) == 0
    assert "top_p" in call.out
    assert "of_a_package" in call.out


def test_inspect_says_where_the_run_stands_and_what_it_scored(call: Calls) -> None:
    document = call.json("inspect", f"{DEMO}@{FIRST}")
    assert document["scores"] == {
        "cells": [{"learned": 0, "on": 0, "accuracy": 0.45, "f1": 0.5}],
        "untrained": [{"on": 0, "accuracy": 0.1, "f1": 0.1}],
    }
    assert call("inspect", f"{DEMO}@{FIRST}") == 0
    assert "task 1 of 2 (news) in training, 0 of 3 epochs done, then 10 batches" in call.out
    assert re.search(r"after news +news +0\.450 +0\.500", call.out)
    assert call("inspect", DEMO) == 0
    assert "task 1 of 2 (news) learned and measured" in call.out


@pytest.mark.parametrize("cell", [[0, 0, "high", 0.5, ""], [0, 0], "cell", [0, 0, math.nan, 0, ""]])
def test_scores_that_no_run_has_written_are_damage(
    cell: object, call: Calls, experiment: CheckpointStore
) -> None:
    snapshot = decode(experiment.read(experiment.entries()[1]))
    state = {**snapshot.state, "scores": {"cells": [cell], "untrained": []}}
    experiment.commit(LAST, encode(replace(snapshot, state=state)))
    assert call("inspect", DEMO) == 1
    assert "its scores are malformed" in call.err


class TestNarrowTerminals:
    @pytest.fixture(params=[60, 80, 200])
    def columns(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
        monkeypatch.setenv("COLUMNS", str(request.param))
        return int(request.param)

    @pytest.fixture
    def terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stdout for a terminal
        monkeypatch.setenv("TERM", "xterm")

    @pytest.mark.parametrize("is_terminal", [True, False])
    def test_list_leaves_the_names_whole(
        self, columns: int, is_terminal: bool, call: Calls, request: pytest.FixtureRequest
    ) -> None:
        if is_terminal:
            request.getfixturevalue("terminal")
        assert call("list", DEMO) == 0
        lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in call.out.splitlines()]
        rows = [line for line in lines if FIRST in line or LAST in line]
        assert len(rows) == 2
        assert max(len(line.rstrip()) for line in rows) <= columns
        hidden = f"Hidden ({columns} columns are too few): shared"
        assert (hidden in call.out) == (columns < 200)
        assert [row.split()[-1] for row in rows] == ["-", "final"]
        assert "unique" in lines[1]
        assert ("loss" in lines[1]) == (columns >= 80)

    @pytest.mark.usefixtures("terminal")
    @pytest.mark.parametrize("command", ["inspect", "diff"])
    def test_what_a_checkpoint_is_fits(self, columns: int, command: str, call: Calls) -> None:
        targets = [f"{DEMO}@{FIRST}"] + [DEMO] * (command == "diff")
        call(command, *targets)
        lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in call.out.splitlines()]
        assert max(len(line.rstrip()) for line in lines) <= columns


def test_inspect_refuses_damage(call: Calls, experiment: CheckpointStore) -> None:
    damage(experiment.directory / FIRST)
    assert call("inspect", f"{DEMO}@{FIRST}") == 1
    assert call.err.startswith("Error: ")
    assert "seal is broken" in call.err
    adapter(experiment, LAST).write_bytes(b"")
    assert call("inspect", f"{DEMO}@{LAST}") == 1
    assert "not a safetensors file" in call.err


def test_verify_finds_damage_and_says_where_a_run_would_go_on(
    call: Calls, experiment: CheckpointStore
) -> None:
    document = call.json("verify", DEMO)
    assert document["intact"]
    assert document["resumes_from"] == LAST
    assert document["objects"] == 3
    damage(adapter(experiment, LAST))
    document = call.json("verify", DEMO, code=1)
    assert [row["status"] for row in document["checkpoints"]] == ["intact", "damaged"]
    assert document["resumes_from"] == FIRST
    assert call("verify", DEMO) == 1
    assert f"a run would be resumed from: {FIRST}" in call.out
    assert call.out.count(LAST) == 2, "in the table, and in the problem below it"
    assert f"\ndamaged: {experiment.directory / LAST}: " in call.out
    assert max(map(len, call.out.split("damaged: ")[0].splitlines())) <= 80
    assert call("verify", f"{DEMO}@{FIRST}") == 0
    assert call("verify", f"{DEMO}@{LAST}") == 1


def test_gc_removes_what_nothing_needs_and_says_how_much(
    call: Calls, experiment: CheckpointStore
) -> None:
    stray = experiment.objects.directory / f"{'0' * 64}.safetensors"
    stray.write_bytes(b"123")
    partial = experiment.directory / ".checkpoint.partial"
    partial.write_bytes(b"1")
    beside = experiment.directory.parent / ".config.yaml.partial"
    beside.write_bytes(b"2")
    kept = {p for p in experiment.directory.rglob("*") if p not in (stray, partial)}
    document = call.json("gc", DEMO, "--dry-run")
    assert {row["path"] for row in document["files"]} == {str(stray), str(partial), str(beside)}
    assert (document["bytes"], document["dry_run"]) == (5, True)
    assert stray.exists()
    assert call("gc", DEMO, "--dry-run") == 0
    assert "3 files, 5 B, would be removed" in call.out
    assert call("gc", DEMO) == 0
    assert "3 files, 5 B, removed" in call.out
    assert set(experiment.directory.rglob("*")) == kept
    assert not beside.exists()
    assert call.json("gc", DEMO)["files"] == []


def test_gc_removes_nothing_while_a_checkpoint_is_unreadable(
    call: Calls, experiment: CheckpointStore
) -> None:
    (experiment.directory / LAST).write_bytes(b"damaged")
    before = set(experiment.directory.rglob("*"))
    assert call("gc", DEMO) == 1
    assert LAST in call.err
    assert set(experiment.directory.rglob("*")) == before


def test_pin_and_unpin(call: Calls, experiment: CheckpointStore) -> None:
    assert call("pin", f"{DEMO}@{FIRST}") == 0
    assert pinned(experiment) == {experiment.entries()[0].position}
    assert [row["pinned"] for row in call.json("list", DEMO)["checkpoints"]] == [True, False]
    assert call.json("unpin", f"{DEMO}@{FIRST}")["was_pinned"]
    assert not call.json("unpin", f"{DEMO}@{FIRST}")["was_pinned"]
    assert call.json("pin", DEMO)["checkpoint"].endswith(LAST)
    (experiment.directory / FIRST).write_bytes(b"damaged")
    assert call("pin", f"{DEMO}@{FIRST}") == 1
    assert pinned(experiment) == {experiment.entries()[1].position}


def test_pin_brings_back_a_run_that_was_not_replaced_in_the_end(
    call: Calls, experiment: CheckpointStore
) -> None:
    set_aside(experiment)  # and the run that was started with --overwrite was killed
    with ExperimentLock.acquire(experiment.directory.parent):
        assert call("pin", DEMO) == 2
    assert "was not pinned" in call.err
    assert call("pin", DEMO) == 0
    assert pinned(experiment) == {experiment.entries()[1].position}
    assert not has_list(experiment)


def test_fork_has_the_run_log_while_another_run_is_about_to_replace_its_own(
    call: Calls, experiment: CheckpointStore
) -> None:
    log = experiment.directory.parent / "results" / "run_log.jsonl"
    written = log.read_bytes()
    set_aside(experiment)
    assert not log.exists()
    assert call("fork", DEMO, "experiments/other") == 0
    assert Path("experiments/other/results/run_log.jsonl").read_bytes() == written
    assert call("export", DEMO, "--out", "run.tar") == 0
    assert call("import", "run.tar", "experiments/third") == 0
    assert Path("experiments/third/results/run_log.jsonl").read_bytes() == written


def test_diff_of_a_checkpoint_with_itself_is_nothing(call: Calls) -> None:
    assert call("diff", DEMO, DEMO) == 0
    assert call.out == "The checkpoints are the same\n"
    assert call.json("diff", DEMO, f"{DEMO}@{LAST}")["same"]


def test_diff_of_equal_results_says_that_only_times_differ(
    call: Calls, experiment: CheckpointStore
) -> None:
    read = load(experiment, CheckpointEntry.at(experiment.directory / LAST))
    state = {**read.snapshot.state, "costs": {"value": 7.5}}
    timed = replace(read, snapshot=replace(read.snapshot, state=state))
    changed = compare(read, timed)
    assert changed.is_same
    assert list(_shown(changed, [read.snapshot, timed.snapshot], tensors=False)) == [
        "Only wall-clock times differ (costs)",
        "The checkpoints are the same",
    ]


def test_what_was_perhaps_meant_is_told(call: Calls) -> None:
    assert call("list", "demo") == 2
    assert call.err == (
        "Error: demo: neither an experiment folder nor a checkpoint; did you mean "
        "experiments/demo?\n"
    )
    assert call("list", "experiments") == 2
    assert "the experiments in it are demo; for instance, experiments/demo" in call.err
    assert call("verify", f"{DEMO}@checkpoint_task7.pt") == 2
    assert call.err.endswith(
        f"checkpoint_task7.pt does not exist, or is not a file; the newest checkpoint there is "
        f"{LAST}\n"
    )


def test_diff_shows_how_far_two_checkpoints_are_apart(
    call: Calls, experiment: CheckpointStore
) -> None:
    document = call.json("diff", f"{DEMO}@{FIRST}", f"{DEMO}@{LAST}", code=1)
    assert not document["same"]
    assert {"name": "step", "first": "10", "second": "20"} in document["cursor"]
    assert document["metrics"] == [
        {"name": "cells/0/0", "first": "[0.45, 0.5]", "second": "[0.95, 0.5]"}
    ]
    assert document["settings"] == document["identity"] == []
    assert [row["name"] for row in document["timings"]] == ["costs: value"]
    changed = next(
        t for t in document["tensors"] if (t["component"], t["name"]) == ("model", "0.weight")
    )
    before, after = (decode(experiment.read(e)).state["model"] for e in experiment.entries())
    gap = (before["0.weight"] - after["0.weight"]).abs()
    assert changed["max_abs"] == pytest.approx(gap.max().item())
    assert (changed["elements"], changed["different_elements"]) == (20, int((gap > 0).sum()))
    assert call("diff", f"{DEMO}@{FIRST}", DEMO) == 1
    assert "The checkpoints differ" in call.out
    assert "accuracy 0.450, macro-F1 0.500" in call.out
    assert "task 1 of 2 (news) learned and measured" in call.out
    assert re.search(r"^model +\d+ ", call.out, re.MULTILINE)
    assert "0.weight" not in call.out
    assert call("diff", f"{DEMO}@{FIRST}", DEMO, "--tensors") == 1
    assert "0.weight" in call.out


def test_diff_says_which_part_one_checkpoint_lacks(
    call: Calls, experiment: CheckpointStore
) -> None:
    entry = experiment.entries()[-1]
    snapshot = decode(experiment.read(entry))
    state = {**snapshot.state, "memory": {"texts": ["a", "b"]}}
    experiment.commit(LAST, encode(replace(snapshot, state=state)))
    first, second = f"{DEMO}@{FIRST}", f"{DEMO}@{LAST}"
    document = call.json("diff", first, second, code=1)
    assert (document["only_in_first"], document["only_in_second"]) == ([], ["memory"])
    assert call("diff", first, second) == 1
    assert re.search(r"^memory .* second$", call.out, re.MULTILINE)
    assert re.search(r"^model .* -$", call.out, re.MULTILINE)
    assert call("diff", second, first) == 1
    assert re.search(r"^memory .* first$", call.out, re.MULTILINE)


def test_diff_tells_routed_scores_apart_by_task_alone(
    call: Calls, experiment: CheckpointStore
) -> None:
    for entry, accuracy, chosen in zip(experiment.entries(), (0.25, 0.5), ([4], [3]), strict=True):
        snapshot = decode(experiment.read(entry))
        scores = {"cells": [], "untrained": [], "routed": [[0, chosen, 0, 1, 0, accuracy, 0.5, ""]]}
        state = {**snapshot.state, "scores": scores}
        experiment.commit(entry.path.name, encode(replace(snapshot, state=state)))
    document = call.json("diff", f"{DEMO}@{FIRST}", DEMO, code=1)
    assert document["metrics"] == [
        {"name": "routed/0/0", "first": "[0.25, 0.5]", "second": "[0.5, 0.5]"}
    ]
    assert call("diff", f"{DEMO}@{FIRST}", DEMO) == 1
    assert "news after news, task inferred" in call.out


def test_diff_refuses_damage(call: Calls, experiment: CheckpointStore) -> None:
    damage(adapter(experiment, LAST))
    assert call("diff", f"{DEMO}@{LAST}", DEMO) == 1
    assert "does not match its digest" in call.err


LIGHT = [
    ["list", "--help"], ["list", DEMO], ["verify", DEMO], ["gc", DEMO], ["pin", DEMO],
    ["unpin", DEMO], ["inspect", DEMO], ["export", DEMO, "--out", "x.tar"],
    ["import", "x.tar", "new"], ["diff", DEMO, "nowhere"],
]  # fmt: skip


def test_only_what_compares_or_forks_states_imports_torch() -> None:
    program = (
        "import json, sys\n"
        "from plora_cl.cli.main import main\n"
        "found = {}\n"
        "for argv in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        main(['checkpoints', *argv])\n"
        "    except SystemExit:\n"
        "        pass\n"
        "    heavy = [m for m in ('torch', 'transformers', 'peft') if m in sys.modules]\n"
        "    found[argv[0]] = heavy\n"
        "print(json.dumps(found), file=sys.stderr)\n"
    )
    argvs = [*LIGHT, ["diff", DEMO, DEMO], ["fork", DEMO, "fork"]]
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(argvs)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stderr.splitlines()[-1])
    assert found.pop("diff") == found.pop("fork") == ["torch"]
    assert set(found) == set(COMMANDS) - {"diff", "fork"}
    assert not any(found.values())


def test_the_module_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "plora_cl.cli.checkpoints", "list", "nowhere"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("Error: nowhere: neither an experiment folder")


# --- branches


@pytest.fixture
def branched(experiment: CheckpointStore) -> CheckpointStore:
    """The experiment after it went on from its first checkpoint with another learning rate."""
    source = CheckpointEntry.at(experiment.directory / FIRST)
    manifest = experiment.manifest(source)
    change = {"key": "learning_rate", "before": "0.1", "now": "0.2", "impact": "x"}
    following = continuation(experiment, source, manifest, [change], by_choice=True)
    snapshot = replace(decode(experiment.read(source)), trajectory=following.trajectory)
    commit(experiment, FIRST, encode(snapshot))
    return experiment


def test_what_was_left_behind_is_not_what_a_folder_stands_for(
    call: Calls, branched: CheckpointStore
) -> None:
    assert call.json("verify", DEMO)["resumes_from"] == FIRST
    assert call.json("inspect", DEMO)["path"].endswith(FIRST)
    assert call.json("pin", DEMO)["checkpoint"].endswith(FIRST)
    assert call.json("export", DEMO, "--out", "one.tar")["checkpoint"].endswith(FIRST)
    assert call.json("fork", DEMO, "experiments/other")["parent"].endswith(FIRST)


def test_retired_checkpoints_are_listed_and_can_be_named(
    call: Calls, branched: CheckpointStore
) -> None:
    retire(branched)
    rows = {row["name"]: row for row in call.json("list", DEMO)["checkpoints"]}
    assert [rows[name]["retired"] for name in (FIRST, f"{FIRST}.branch0", f"{LAST}.branch0")] == [
        False,
        True,
        True,
    ]
    assert rows[FIRST]["trajectory"]["branch"] == 1
    assert call("list", DEMO) == 0
    assert "final, retired" in call.out
    assert call.json("inspect", f"{DEMO}@{LAST}.branch0")["cursor"]["step"] == 20
    assert call.json("verify", f"{DEMO}@{LAST}.branch0")["intact"]
    names = [row["name"] for row in call.json("verify", DEMO)["checkpoints"]]
    assert names == [FIRST, f"{FIRST}.branch0", f"{LAST}.branch0"]


def test_a_retired_checkpoint_can_be_forked_and_exported(
    call: Calls, branched: CheckpointStore
) -> None:
    retire(branched)
    assert call("fork", f"{DEMO}@{LAST}.branch0", "experiments/other") == 0
    assert call("export", f"{DEMO}@{LAST}.branch0", "--out", "one.tar") == 0
    assert call("import", "one.tar", "experiments/third") == 0
    for folder in ("experiments/other", "experiments/third"):
        assert call.json("verify", folder)["resumes_from"] == LAST


def test_gc_removes_retired_checkpoints_only_when_it_is_told_to(
    call: Calls, branched: CheckpointStore
) -> None:
    retire(branched)
    log = branched.directory.parent / "results" / "run_log.jsonl.before-branch1-01234567"
    log.write_text("{}\n")
    assert call.json("gc", DEMO)["files"] == []
    assert call("pin", f"{DEMO}@{FIRST}.branch0") == 0
    alone = adapter(branched, f"{LAST}.branch0")
    shown = call.json("gc", DEMO, "--retired", "--dry-run")["files"]
    assert {row["path"] for row in shown} == {
        str(branched.directory / f"{LAST}.branch0"),
        str(alone),
    }
    assert call.json("gc", DEMO, "--retired")["files"] == shown
    assert [entry.path.name for entry in branched.retired()] == [f"{FIRST}.branch0"]
    assert call("unpin", f"{DEMO}@{FIRST}.branch0") == 0
    assert call("gc", DEMO, "--retired") == 0
    assert (branched.retired(), log.exists()) == ([], False)
    assert call.json("verify", DEMO)["intact"]


def test_damaged_base_weights_stop_no_run(call: Calls, experiment: CheckpointStore) -> None:
    damage(
        experiment.objects.path(experiment.manifest(experiment.entries()[0]).objects["model/base"])
    )
    document = call.json("verify", DEMO, code=1)
    assert [row["status"] for row in document["checkpoints"]] == ["damaged", "damaged"]
    assert document["resumes_from"] == LAST


def test_verify_says_why_no_run_would_be_resumed(call: Calls, experiment: CheckpointStore) -> None:
    for entry in experiment.entries():
        damage(entry.path)
    assert call("verify", DEMO) == 1
    assert "a run would be resumed from: nothing" in call.out
    assert "every checkpoint in" in call.out


def test_a_pipe_gets_no_blanks_at_the_end_of_a_line(
    call: Calls, experiment: CheckpointStore
) -> None:
    assert experiment.entries()
    assert call("inspect", DEMO) == 0
    assert call.out
    assert all(line == line.rstrip() for line in call.out.splitlines())


def test_one_checkpoint_is_counted_as_one(call: Calls, experiment: CheckpointStore) -> None:
    for entry in experiment.entries()[:-1]:
        entry.path.unlink()
    assert call("list", DEMO) == 0
    assert "\n1 checkpoint in " in call.out
