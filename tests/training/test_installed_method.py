"""The package of docs/add-a-method.md, installed by pip into an environment of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import plora_cl
from methods.docs_example import write_package
from training.evidence import evidence
from warm import PLORA_CL, Interpreter

RECORDED = ("use_l2_anchor", "lambda_l2")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of a fresh environment that has the package, and all that we have."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    ours = [str(Path(plora_cl.__file__).parents[1]), *sys.path]
    (site / "ours.pth").write_text("".join(f"{path}\n" for path in ours if path))
    pip = [str(python), "-m", "pip", "-q", "--disable-pip-version-check"]
    offline = {**os.environ, "PIP_NO_INDEX": "1"}
    # What comes with Python 3.11 cannot build a wheel, and hides ours, which can.
    subprocess.run([*pip, "uninstall", "-y", "setuptools"], check=True, env=offline)
    package = write_package(folder / "package")
    install = ["install", "--no-deps", "--no-build-isolation", str(package)]
    subprocess.run([*pip, *install], check=True, env=offline)
    return python


@pytest.fixture(scope="module")
def installed(python: Path) -> Iterator[Interpreter]:
    """Return that interpreter, ready to start processes at once."""
    interpreter = Interpreter(python)
    yield interpreter
    interpreter.close()


def train(interpreter: Interpreter, *argv: str, code: int = 0) -> str:
    done = interpreter.run(PLORA_CL, "train", *argv)
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    return output


@pytest.mark.timeout(240)
def test_an_installed_method_is_used_like_a_built_in_one(
    python: Path,
    installed: Interpreter,
    warm: Interpreter,
    settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({**settings, "lambda_l2": 3.0}))

    def place(folder: str) -> list[str]:
        return ["--config", str(config), "--experiment-dir", str(tmp_path / folder)]

    command = [str(python), "-m", "plora_cl.cli.main", "train", *place("whole"), "--use-l2-anchor"]
    subprocess.run(command, check=True)
    results = json.loads((tmp_path / "whole/run/results/final_results.json").read_text())
    assert results["methods"].keys() == {"olora", "ewc", "l2_anchor"}
    assert {name: results["identity"][name] for name in RECORDED} == {
        "use_l2_anchor": True,
        "lambda_l2": 3.0,
    }

    process = installed.start(PLORA_CL, "train", *place("killed"), "--use-l2-anchor")
    log = tmp_path / "killed/run/results/run_log.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < 14:
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL

    here = ["--experiment-dir", str(tmp_path / "killed"), "--experiment-name", "run", "--resume"]
    refused = train(installed, *here, "--lambda-l2", "5", code=2)
    assert "lambda_l2: 3.0 in the checkpoint, now 5.0" in refused
    assert "--accept-changes" in refused
    without = train(warm, *here, code=2)
    assert "config.yaml: use_l2_anchor: unknown setting" in without
    assert "if the run used an installed package that declares it, install that again" in without
    assert "there are" not in without

    train(installed, *here)
    assert evidence(tmp_path / "killed/run") == evidence(tmp_path / "whole/run")


@pytest.mark.timeout(120)
def test_its_settings_count_for_nothing_while_it_is_off(
    installed: Interpreter, settings: dict[str, Any], tmp_path: Path
) -> None:
    small = {**settings, "tasks": settings["tasks"][:1], "epochs": 1, "experiment_dir": "."}
    base = {**small, "lambda_l2": 5.0}
    config = tmp_path / "off.yaml"
    config.write_text(yaml.safe_dump(base))
    here = ["--config", str(config), "--experiment-dir", str(tmp_path)]
    train(installed, *here)
    first = min((tmp_path / "run/checkpoints").glob("*.pt"), key=lambda path: path.stat().st_mtime)
    assert "its task is already learned" in train(installed, *here, "--resume")
    assert "Checkpoint loaded!" in train(installed, *here, "--resume", str(first))

    del base["experiment_name"]
    orders = {"one": base.pop("tasks")}
    study = {"name": "s", "base": base, "orders": orders, "methods": ["plain"], "seeds": [1]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    for argv in ([], ["--status"]):
        done = installed.run(PLORA_CL, "study", "study.yaml", *argv, cwd=tmp_path)
        assert done.returncode == 0, done.stderr + done.stdout
        assert "1 run: 1 done" in done.stdout


@pytest.mark.timeout(120)
def test_a_run_without_it_leaves_no_trace_of_the_package(
    installed: Interpreter, settings: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    config = tmp_path / "plain.yaml"
    config.write_text(yaml.safe_dump(settings))
    train(installed, "--config", str(config), "--experiment-dir", str(tmp_path))
    recorded = (tmp_path / "run/config.yaml").read_text()
    assert not any(name in recorded for name in RECORDED)
    assert evidence(tmp_path / "run") == evidence(whole)
