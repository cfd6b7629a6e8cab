"""The public names of the package: they are there, documented, and cost nothing until used."""

from __future__ import annotations

import inspect
import itertools
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import plora_cl
from plora_cl import errors
from plora_cl.state_digest import state_digest

REFERENCE = Path(__file__).parents[1] / "docs" / "reference.md"
HEAVY = ("torch", "transformers", "peft", "numpy", "pydantic", "yaml", "pyarrow", "scipy")


def run(code: str) -> str:
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


@pytest.mark.parametrize("module", ["plora_cl", "plora_cl.checkpoint"])
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    loaded = run(f"import sys, {module}; print(*sys.modules)").split()
    assert module in loaded
    assert not set(HEAVY) & set(loaded)


def test_every_public_name_is_found_and_listed() -> None:
    assert sorted(plora_cl.__all__) == plora_cl.__all__
    for name in plora_cl.__all__:
        assert getattr(plora_cl, name) is not None
        assert name in dir(plora_cl)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        plora_cl.Trainer  # noqa: B018


def test_every_error_is_public_and_has_the_common_base() -> None:
    raised = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert raised <= set(plora_cl.__all__)
    assert all(issubclass(getattr(errors, name), plora_cl.PloraError) for name in raised)


def test_every_public_name_is_documented_in_its_docstring_and_in_the_reference() -> None:
    reference = REFERENCE.read_text(encoding="utf-8")
    for name in plora_cl.__all__:
        assert f"`{name}" in reference, name
        value = getattr(plora_cl, name)
        if isinstance(value, type | types.FunctionType):
            assert inspect.getdoc(value), name


def test_settings_are_loaded_with_keywords_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("epochs: 2\nseed: 7\n", encoding="utf-8")
    settings = plora_cl.load_settings(file, epochs=3)
    assert (settings.epochs, settings.seed) == (3, 7)


def test_every_problem_of_keywords_is_listed() -> None:
    with pytest.raises(plora_cl.SettingsError) as caught:
        plora_cl.load_settings(epochs=0, sede=1)
    assert len(caught.value.problems) == 2
    assert "seed" in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import tiny

    tiny.make_encoder(tmp_path / "models" / "encoder")
    tiny.make_tasks(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLORA_CL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_code_of_the_reference_runs(folder: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", REFERENCE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    saved = Path(str(names["path"]))
    assert saved.parent == folder / "experiments" / "own-loop" / "checkpoints"
    assert len(names["optimizer"].state_dict()["state"]) > 0  # type: ignore[attr-defined]


def test_the_loop_of_the_reference_resumes_to_the_bit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    common = next(iter(re.findall(r"common = \{.*?\n\}", text, re.DOTALL)))
    (loop,) = re.findall(r"```python\n(import torch\n.*?)```", text, re.DOTALL)
    common = common.replace("{", '{"batch_size": 8, ', 1)
    code = f"import plora_cl\n{common}\n{loop}"

    def learned(code: str) -> str:
        names: dict[str, Any] = {}
        exec(code, names)
        parts = names["trainer"].model.parts()
        return state_digest({name: part.state_dict() for name, part in parts.items()})

    save, saves = plora_cl.CLTrainer.save_checkpoint, itertools.count()

    def killed(*arguments: Any, **options: Any) -> Path:
        path = save(*arguments, **options)
        if next(saves) in (3, 9):
            raise KeyboardInterrupt
        return path

    with monkeypatch.context() as patch:
        patch.setattr(plora_cl.CLTrainer, "save_checkpoint", killed)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                exec(code, {})
    assert learned(code) == learned(code.replace("own-loop", "whole"))
    assert learned(code)  # which has nothing left to learn


def test_settings_of_another_type_are_refused_by_name() -> None:
    with pytest.raises(plora_cl.SettingsError, match="a dict; expected what load_settings returns"):
        plora_cl.CLTrainer.from_settings({"epochs": 1})  # type: ignore[arg-type]
