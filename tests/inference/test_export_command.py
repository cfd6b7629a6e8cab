"""``plora-cl export``: folders that load where there is no plora-cl."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plora_cl
import tiny
from cli.test_main import imported_by
from inference.hub_server import hub
from plora_cl import Experiment, ModelError, OutputError, export_task, load_experiment
from plora_cl.cli.main import main
from plora_cl.export import task as exporting
from plora_cl.export.card import model_card
from plora_cl.export.folder import appearing
from plora_cl.export.lineage import hub_id, lineage_of

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
HEAVY = {"torch", "transformers", "datasets", "peft"}

LOADER = """\
import json, re, sys
import numpy as np
sys.modules["plora_cl"] = None  # an import of it fails
for folder, texts, target in json.load(sys.stdin):
    (usage,) = re.findall(r"```python\\n(.*?)```", open(f"{folder}/README.md").read(), re.DOTALL)
    example = 'texts = ["first text", "second text"]'
    assert example in usage
    names = {}
    exec(usage.replace(example, f"texts = {texts!r}"), names)
    logits = names["logits"]
    np.save(target, logits if isinstance(logits, np.ndarray) else logits.numpy())
"""


@pytest.fixture(scope="module")
def experiment(folder: Path) -> Experiment:
    return load_experiment(folder, device="cpu")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("texts") / "food"
    path = tiny.make_task(folder, tiny.TOPICS["food"], train=40, test=20) / "test.jsonl"
    found = [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
    return [*found, "a very long text " * 40]  # cut as in training


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        code = main(["export", *argv])
    except SystemExit as end:
        code = int(str(end.code))
    return code, *capsys.readouterr()


def elsewhere(exports: list[tuple[Path, list[str]]], folder: Path) -> tuple[list[Any], list[str]]:
    """Return logits, and the lines printed, of a process that runs the usage of each card."""
    jobs = [
        (str(export), texts, str(folder / f"{number}.npy"))
        for number, (export, texts) in enumerate(exports)
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADER],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return [np.load(target) for _, _, target in jobs], done.stdout.splitlines()


def test_every_export_has_the_logits_and_labels_of_the_experiment_where_there_is_no_plora_cl(
    experiment: Experiment, learn: Callable[..., Path], texts: list[str], tmp_path: Path
) -> None:
    several = load_experiment(
        learn(composition="cumulative", shared="lora", use_ewc=False, epochs=1), device="cpu"
    )
    lateral = load_experiment(learn(use_lateral=True, pooling="mean", epochs=1), device="cpu")
    cases = [
        *((experiment, kind) for kind in ("transformers", "peft", "onnx")),
        *((several, kind) for kind in ("transformers", "peft", "onnx")),
        (lateral, "onnx"),
    ]
    exports: list[tuple[Path, list[str]]] = []
    for number, (made_from, kind) in enumerate(cases):
        out = tmp_path / f"{number}-{kind}"
        assert export_task(made_from, "food", out, format=kind) == out  # type: ignore[arg-type]
        exports.append((out, texts))
    found, printed = elsewhere(exports, tmp_path)
    for (made_from, kind), logits, line in zip(cases, found, printed, strict=True):
        expected = made_from.logits(texts, "food")
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5, err_msg=kind)
        assert line == str(made_from.predict(texts, "food").labels)


def test_an_earlier_checkpoint_is_exported_as_it_was(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = max((experiment.folder / "checkpoints").glob("checkpoint_task0_*"))
    flags = ["--task", "animals", "--format", "transformers", "--checkpoint", first.name]
    out = tmp_path / "then"
    code, shown, err = call(capsys, str(experiment.folder), *flags, "--out", str(out), "--json")
    assert code == 0, err
    described = json.loads(shown)
    assert described == json.loads((out / "lineage.json").read_bytes())
    assert described["checkpoint"] == first.name
    assert described["checkpoint_sha256"] == experiment.at(first).checkpoint_digest()
    assert described["learned"] == ["animals"]


def test_the_card_names_data_settings_scores_and_lineage(
    experiment: Experiment, tmp_path: Path
) -> None:
    out = export_task(experiment, "food", tmp_path / "out", format="transformers")
    card = (out / "README.md").read_text("utf-8")
    scores = experiment.scores().accuracy.loc["food", "food"]
    for expected in (
        f"| accuracy | {scores:.4f} |",
        f"`{experiment.checkpoint_digest()}`",
        f"`{experiment.checkpoint.name}`",
        "| `learning_rate` | `0.02` |",
        "pipeline_tag: text-classification",
        "`bread`, `fruit`, `soup`",
        "| tasks learned by then | `animals`, `weather`, `food` |",
    ):
        assert expected in card
    assert str(experiment.folder.parent) not in card.replace(str(out), "")
    described = (out / "lineage.json").read_text("utf-8")
    assert "cache_dir" not in described
    assert str(experiment.folder.parent) not in described


def test_hostile_names_stay_on_their_line_of_the_card(experiment: Experiment) -> None:
    from dataclasses import replace

    lineage = lineage_of(experiment, "food", "onnx")
    odd = replace(lineage, task="a\n# b|c", classes=("x`y|\n---", "``"), base="a: b\n- c")
    card = model_card(odd, where='a"\nimport os', base="o/n\nlicense: mit", is_pushed=False)
    assert card.count("\n---\n") == 1
    assert "\n# b" not in card
    assert 'where = "a\\"\\nimport os"' in card
    assert "\nlicense: mit" not in card


def test_what_is_wrong_with_an_export_keeps_it_from_appearing(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> Any:
        return lambda ids, mask: experiment.classifier(ids, mask, 2) + 0.01

    monkeypatch.setattr(exporting, "_save", wrong)
    with pytest.raises(ModelError, match="logits of the export as onnx differ"):
        export_task(experiment, "food", tmp_path / "out", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def interrupted(*, overwrite: bool) -> None:
        with appearing(out, overwrite=overwrite) as new:
            (new / "half").write_text("a", "utf-8")
            assert out.exists() == overwrite
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted(overwrite=False)
    assert list(tmp_path.iterdir()) == []
    with appearing(out, overwrite=False) as new:
        (new / "lineage.json").write_text('{"format": "plora-cl export 1"}', "utf-8")
        (new / "lineage.json").chmod(0o600)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((out / "lineage.json").stat().st_mode) == 0o666 & ~mask
    with pytest.raises(ZeroDivisionError):
        interrupted(overwrite=True)
    assert (out / "lineage.json").exists()
    with appearing(out, overwrite=True) as new:
        (new / "other").write_text("b", "utf-8")
    assert [path.name for path in out.iterdir()] == ["other"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_an_earlier_export_is_replaced(experiment: Experiment, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("all my work", "utf-8")
    for overwrite, message in ((False, "exists; replace it with"), (True, "no export of plora-cl")):
        with pytest.raises(OutputError, match=message):
            export_task(experiment, "food", mine, format="onnx", overwrite=overwrite)
    (tmp_path / "link").symlink_to(mine)
    with pytest.raises(OutputError, match="no export of plora-cl"):
        export_task(experiment, "food", tmp_path / "link", format="onnx", overwrite=True)
    assert (mine / "thesis.tex").read_text("utf-8") == "all my work"


def test_every_command_of_the_page_runs(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("experiments").mkdir()
    Path("experiments/demo").symlink_to(folder)
    page = PAGE.read_text("utf-8")
    (block,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for command in block.splitlines():
        code, out, err = call(capsys, *shlex.split(command)[2:])
        assert (code, err) == (0, "")
        assert out.endswith("README.md shows its usage\n")
    (python,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(python, {})
    for name in ("food", "food-adapter", "food-onnx", "food-model"):
        assert Path(name, "README.md").is_file()
    assert Path("food-adapter/base/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--task foods --format onnx --out x", "did you mean 'food'?"),
        ("--task food --format onxx --out x", "did you mean onnx?"),
        ("--task food --format onnx", "--out"),
        ("--task food --format onnx --out a/b", "there is no folder"),
        ("--task food --format onnx --out .", "exists; replace it with --overwrite"),
        ("--task food --format onnx --out x --checkpoint y.pt", "see: plora-cl checkpoints list"),
        ("--task food --format onnx --out x --push food", "'food' is not the name of a repository"),
        ("--task food --format onnx --out x --push a/b..c", "is not the name of a repository"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path,
    arguments: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, str(folder), *shlex.split(arguments))
    assert code == 2
    assert message in err
    assert (out, err.count("\n")) == ("", 1)


def test_a_mistake_is_answered_before_torch_is_imported(folder: Path, tmp_path: Path) -> None:
    out = str(tmp_path)
    argv = ["export", str(folder), "--task", "food", "--format", "onnx", "--out", out]
    code, _, loaded = imported_by(*argv, stream="stderr")
    assert code == 2
    assert not loaded & HEAVY


def test_the_help_fits_a_screen_and_ends_with_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, out, _ = call(capsys, "--help")
    lines = out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("  plora-cl export")


def test_a_missing_extra_is_one_line_that_says_what_to_install(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModelError, match=r"needs onnxscript; .* pip install 'plora-cl\[onnx\]'"):
        export_task(experiment, "food", tmp_path / "out", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_pytorch_cannot_trace_is_one_line(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator\nand a page of graph")

    monkeypatch.setattr("torch.onnx.export", broken)
    with pytest.raises(ModelError, match=r"cannot export this encoder to ONNX: .*no such operator"):
        export_task(experiment, "food", tmp_path / "out", format="onnx")


def test_a_base_is_on_the_hub_unless_it_is_a_folder_or_packaged(tmp_path: Path) -> None:
    assert hub_id("distilbert-base-uncased") == "distilbert-base-uncased"
    assert hub_id("owner/name") == "owner/name"
    assert hub_id("packaged:minilm-l6") is None
    assert hub_id(str(tmp_path / "gone")) is None


class TestPush:
    """Against a hub in this process, and against none."""

    @pytest.fixture(autouse=True)
    def logged_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    @staticmethod
    def export(folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
        flags = ["--task", "food", "--format", "peft", "--out", str(out), "--push", "owner/name"]
        return call(capsys, str(folder), *flags)

    def test_an_export_is_uploaded_whole_and_private(
        self, folder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        out = tmp_path / "out"
        with hub() as server:
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
            code, _, err = self.export(folder, out, capsys)
        assert code == 0, err
        assert err == f"Pushed to {server.address}/owner/name\n"
        made = server.made[0]
        assert made.get("visibility") == "private" or made.get("private") is True
        there = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        assert server.files == there
        assert 'snapshot_download("owner/name")' in (out / "README.md").read_text("utf-8")

    @pytest.mark.parametrize("status", [401, 403, 500])
    def test_a_hub_that_refuses_is_one_line_and_the_folder_stays(
        self, folder: Path, status: int, tmp_path: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        out = tmp_path / "out"
        with hub(status) as server:
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
            code, _, err = self.export(folder, out, capsys)
        assert code == 2
        assert f"{out} is complete, and was not pushed to owner/name: " in err
        assert f"hf upload owner/name {out}" in err
        assert err.count("\n") == 1
        assert (out / "README.md").is_file()

    def test_without_a_network_the_folder_stays(
        self, folder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        with hub() as server:
            gone = server.address
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", gone)
        code, _, err = self.export(folder, tmp_path / "out", capsys)
        assert code == 2
        assert "was not pushed to owner/name" in err
        assert err.count("\n") == 1

    def test_what_cannot_be_pushed_is_refused_before_anything_is_exported(
        self, folder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
        code, _, err = self.export(folder, tmp_path / "out", capsys)
        assert (code, "nobody is logged in" in err) == (2, True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        code, _, err = self.export(folder, tmp_path / "out", capsys)
        assert (code, "HF_HUB_OFFLINE is set" in err) == (2, True)
        assert not (tmp_path / "out").exists()


def test_the_function_is_public(experiment: Experiment, tmp_path: Path) -> None:
    assert plora_cl.export_task is export_task
    with pytest.raises(ModelError, match="format: 'onx'; expected peft, transformers, onnx"):
        export_task(experiment, "food", tmp_path / "out", format="onx")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="did you mean 'food'"):
        export_task(experiment, "foods", tmp_path / "out", format="onnx")
    shutil.rmtree(tmp_path)
