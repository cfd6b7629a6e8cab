"""Code that comes with a model or a data set never runs, whatever is answered on a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from checkpoint.components import Holder, capture
from generators import make_generator
from plora_cl.checkpoint.snapshot.codec import encode
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.checkpoint.tools.bundle import export_bundle
from plora_cl.cli.checkpoints.main import main as checkpoints
from plora_cl.config.precedence import dump, validate
from plora_cl.data.sources.hub import HubSource
from plora_cl.errors import DataError, ModelError
from plora_cl.evaluation.runlog import RunLog
from plora_cl.model.encoder import load_encoder, load_tokenizer
from tiny import make_encoder, make_tasks

SMALL = ["--device", "cpu"]


def touching(marker: Path) -> str:
    return f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"


def make_evil(folder: Path, marker: Path) -> Path:
    """Save a model whose configuration, network and tokenizer are Python files beside it."""
    folder.mkdir()
    auto_map = {
        "AutoConfig": "configuration_evil.EvilConfig",
        "AutoModel": "modeling_evil.EvilModel",
        "AutoModelForCausalLM": "modeling_evil.EvilModel",
        "AutoTokenizer": [None, "tokenization_evil.EvilTokenizer"],
    }
    config = {"model_type": "evil", "architectures": ["EvilModel"], "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(config))
    named = {"tokenizer_class": "EvilTokenizer", "auto_map": auto_map}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    for module in ("configuration", "modeling", "tokenization"):
        (folder / f"{module}_evil.py").write_text(touching(marker))
    return folder


def on_terminals(folder: Path, commands: list[list[str]]) -> list[tuple[int, str]]:
    """Run ``plora-cl train`` with each list of arguments, on a terminal that answers "y"."""
    outputs = [folder / f"output-{number}" for number in range(len(commands))]
    requests = [
        json.dumps({"argv": ["--device", "cpu", *argv], "output": str(output)})
        for argv, output in zip(commands, outputs, strict=True)
    ]
    server = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("terminal_server.py"))],
        input="\n".join(requests),
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules")},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    codes = map(int, server.stdout.split())
    return [(code, path.read_text()) for code, path in zip(codes, outputs, strict=True)]


def make_bundle(folder: Path, model: Path, tasks: list[str]) -> Path:
    """Export a checkpoint whose settings name ``model``, and a cache folder of their own."""
    run_log = RunLog(folder / "results" / "run_log.jsonl")
    run_log.append({"step": 1})
    run_log.sync()
    values = {"model_name": str(model), "tasks": tasks, "cache_dir": str(folder / "elsewhere")}
    settings = validate(values)
    snapshot = capture({"model": Holder(torch.arange(5.0)), "run_log": run_log})
    facts = replace(snapshot.facts, settings=settings.model_dump(mode="json"))
    snapshot = replace(snapshot, facts=facts)
    store = CheckpointStore(folder / "checkpoints")
    entry = store.commit("checkpoint_task1_epoch2_batch2.pt", encode(snapshot))
    export_bundle(entry, folder / "a.tar", config=dump(settings))
    return folder / "a.tar"


CASES = ("encoder", "generator", "imported")


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, Path]]:
    """Return of each case the exit code, what was said, and the folder that holds the model."""
    folders = [tmp_path_factory.mktemp(case) for case in CASES]
    commands = []
    for case, folder in zip(CASES, folders, strict=True):
        evil = make_evil(folder / "evil-model", folder / "marker")
        tasks = [str(task) for task in make_tasks(folder / "tasks")]
        argv = ["--model-name", str(evil), "--tasks", *tasks]
        if case == "generator":
            encoder = str(make_encoder(folder / "encoder"))
            argv = ["--model-name", encoder, "--tasks", *tasks, "--use-replay"]
            argv += ["--set", f"generation_model={evil}", "--set", "max_length=16"]
        elif case == "imported":
            bundle = make_bundle(folder / "theirs", evil, tasks)
            assert checkpoints(["import", str(bundle), str(folder / "mine")]) == 0
            argv = ["--config", str(folder / "mine" / "config.yaml"), "--resume"]
        commands.append([*argv, "--experiment-dir", str(folder)] if case != "imported" else argv)
    done = on_terminals(tmp_path_factory.mktemp("terminals"), commands)
    return {case: (*end, folder) for case, end, folder in zip(CASES, done, folders, strict=True)}


@pytest.mark.parametrize("case", CASES)
def test_code_in_a_model_folder_is_refused_even_if_somebody_says_yes(
    case: str, ends: dict[str, tuple[int, str, Path]]
) -> None:
    code, output, folder = ends[case]
    assert not (folder / "marker").exists()
    assert code == 2, output
    (line,) = [line for line in output.splitlines() if line.startswith("Error: ")]
    assert str(folder / "evil-model") in line
    assert "asks for Python code of its own" in line
    assert "Traceback" not in output


def test_an_import_says_what_its_settings_name_and_writes_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "theirs", tmp_path / "\x1b[31mmodel", ["data\x1b[2J/news"])
    assert checkpoints(["import", str(bundle), str(tmp_path / "mine")]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert r"\u001b[31mmodel" in said
    assert r"data\u001b[2J/news" in said
    settings = (tmp_path / "mine" / "config.yaml").read_text()
    assert "cache_dir: null" in settings
    assert "elsewhere" not in settings


def test_pickled_weights_do_not_execute_what_they_name(tmp_path: Path) -> None:
    class Command:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.system, (f"touch {tmp_path / 'marker'}",))

    folder = make_encoder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Command()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"model_name: .*cannot load it") as raised:
        load_encoder(str(folder))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "marker").exists()


def test_compute_kernels_on_the_hub_are_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attn_implementation": "evil/code"}))
    with pytest.raises(ModelError, match="names code on the hub, 'evil/code'"):
        load_encoder(str(folder))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
def test_an_adapter_does_not_pass_for_a_model_and_points_nowhere_else(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    folder = make_encoder(tmp_path / "model")
    encoder = load_encoder(str(folder))
    get_peft_model(encoder, LoraConfig(target_modules=["query"])).save_pretrained(str(folder))
    with pytest.raises(ModelError, match="is an adapter of another model; merge it"):
        load_encoder(str(folder))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": 7}'),
        ("config.json", b"\xff\x00"),
        ("config.json", b'{"model_type": "bert", "hidden_size": "wide"}'),
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 100),
    ],
)
def test_a_damaged_model_is_one_line(tmp_path: Path, file: str, content: bytes) -> None:
    folder = make_encoder(tmp_path / "model")
    (folder / file).write_bytes(content)
    with pytest.raises(ModelError, match=r"model_name: .*cannot load it: ") as raised:
        load_encoder(str(folder))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"model": {"type": "WordPiece"}}'])
def test_a_damaged_tokenizer_is_one_line(tmp_path: Path, content: bytes) -> None:
    folder = make_encoder(tmp_path / "model")
    (folder / "tokenizer.json").write_bytes(content)
    (folder / "vocab.txt").unlink(missing_ok=True)
    with pytest.raises(ModelError, match=r"model_name: .*cannot load it: ") as raised:
        load_tokenizer(str(folder))
    assert "\n" not in str(raised.value)


def test_a_data_set_that_is_a_script_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "news"
    folder.mkdir()
    (folder / "news.py").write_text(touching(tmp_path / "marker"))
    source = HubSource("news", str(folder))
    with pytest.raises(DataError, match="never runs code that comes with data"):
        source.splits()
    assert not (tmp_path / "marker").exists()


def test_a_chat_template_reaches_nothing_outside_its_sandbox(tmp_path: Path) -> None:
    from plora_cl.generation.causal import CausalGenerator

    folder = make_generator(tmp_path / "lm", ["word"], chat=True)
    reaching = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    (folder / "chat_template.jinja").write_text(reaching)
    generator = CausalGenerator(
        str(folder),
        max_new_tokens=2,
        temperature=1.0,
        top_p=1.0,
        device=torch.device("cpu"),
    )
    with pytest.raises(ModelError, match=r"generation_model: .*chat template"):
        generator.generate("word", count=1, seed=0)
