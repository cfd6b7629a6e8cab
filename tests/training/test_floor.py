"""``plora-cl floor``: beside a run, never in its place."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from plora_cl.baselines.floor_run import learn_floor
from plora_cl.cli.main import main
from plora_cl.cli.train.floor import planned
from plora_cl.config.schema import Settings
from plora_cl.errors import ExperimentExistsError
from plora_cl.training.reporting import Reporter
from training.going_on import copied_tasks, rewrite, train


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """Return a copy of a finished run."""
    return shutil.copytree(whole, tmp_path / "runs" / "run")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results" / "final_results.json").read_bytes())
    return found


def test_the_floor_of_a_run_stands_beside_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(run)
    for _ in range(2):  # a floor may be learned anew
        assert main(["floor", "--config", str(run / "config.yaml")]) == 0
    assert contents(run) == before
    floor = run.with_name("run-floor")
    assert [entry["task"] for entry in results(floor)["floor"]] == ["animals", "weather", "food"]
    assert results(floor)["tasks"] == results(run)["tasks"]
    said = capsys.readouterr().out
    assert said.count(f"Results in {floor / 'results'}") == 2
    assert said.count(f"{floor} holds a floor; its results will be replaced") == 1


def test_a_floor_shows_macro_f1_and_names_skewed_tasks(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (task,) = copied_tasks({**settings, "tasks": settings["tasks"][:1]}, tmp_path / "tasks")

    def skew(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [line for k, line in enumerate(lines) if line["label"] == "cat" or k % 18 == 1]

    for file in Path(task).glob("*.jsonl"):
        rewrite(file, skew)
    config = tmp_path / "floor.yaml"
    given = {**settings, "tasks": [task], "experiment_dir": str(tmp_path / "runs")}
    config.write_text(yaml.safe_dump(given))
    assert main(["floor", "--config", str(config)]) == 0
    said = capsys.readouterr().out
    (warning,) = [line for line in said.splitlines() if line.startswith("Warning: ")]
    assert "is skewed" in warning
    assert warning.endswith("look at macro-F1"), "class weights change nothing here"
    assert re.search(
        r"accuracy \d+\.\d% \(macro-F1 \d+\.\d%; share of the largest class \d+\.\d%\)", said
    )


def test_a_floor_gets_the_name_that_is_given(run: Path) -> None:
    argv = ["floor", "--config", str(run / "config.yaml"), "--experiment-name", "tfidf"]
    assert main([*argv, "--tasks", f"{{path: {_first_task(run)}}}", "--quiet"]) == 0
    assert len(results(run.with_name("tfidf"))["floor"]) == 1


def _first_task(run: Path) -> str:
    return str(yaml.safe_load((run / "config.yaml").read_text())["tasks"][0])


@pytest.mark.parametrize("kept", ["checkpoints", "results"])
def test_the_results_of_a_run_are_never_overwritten(
    run: Path, kept: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / ({"checkpoints", "results"} - {kept}).pop())
    before = contents(run)
    settings = Settings.model_validate(yaml.safe_load((run / "config.yaml").read_text()))
    settings = settings.model_copy(update={"experiment_dir": str(run.parent)})
    with pytest.raises(ExperimentExistsError, match="holds a run"):
        learn_floor(settings, Reporter())
    assert planned(run / "config.yaml") == 2
    argv = ["floor", "--config", str(run / "config.yaml"), "--experiment-name", "run"]
    assert main([*argv, "--experiment-dir", str(run.parent)]) == 2
    assert contents(run) == before
    assert "holds a run, whose results would be overwritten" in capsys.readouterr().err


def test_a_text_longer_than_the_encoder_takes_is_refused_at_the_start(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(Exception, match="max_length: 33 is more than the 32 tokens"):
        train(settings, tmp_path, max_length=33)
    train(settings, tmp_path, max_length=32, epochs=1, tasks=settings["tasks"][:1])


def test_tasks_are_looked_at_before_a_model(settings: dict[str, Any], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(Exception, match="is not a folder; expected one with train, test"):
        train(settings, tmp_path, tasks=[missing], model_name=str(tmp_path / "no-model"))


def test_the_floor_says_why_it_needs_a_tokenizer(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text("{}", encoding="utf-8")
    argv = ["floor", "--config", str(run / "config.yaml")]
    assert main([*argv, "--model-name", str(tmp_path / "encoder")]) == 2
    said = capsys.readouterr().err
    assert said.endswith("the floor tokenises as the run would: give its --model-name\n")
