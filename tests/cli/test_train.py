"""The flags of ``plora-cl train``, up to the call of the trainer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest

from plora_cl.checkpoint.disk.lock import ExperimentLock
from plora_cl.cli.train.command import main
from plora_cl.cli.train.flags import flag_of, flag_settings, train_parser
from plora_cl.config.errors import setting_names, unknown_setting
from plora_cl.config.presets import preset_names, preset_title
from plora_cl.config.schema import Settings
from plora_cl.errors import CheckpointNotFoundError, RunStoppedError
from plora_cl.training.reporting import Reporter, StepReport, TaskScore
from plora_cl.training.stopping import StopRequest
from plora_cl.units import Unit
from tiny import make_task


@dataclass
class Trainer:
    """Stands for `CLTrainer`, whose import takes seconds: records what it is asked for."""

    settings: list[Settings] = field(default_factory=list)
    reporters: list[Reporter | None] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    error: BaseException | None = None
    undone: bool = False

    def from_settings(
        self,
        settings: Settings,
        *,
        reporter: Reporter | None = None,
        stop: StopRequest | None = None,
    ) -> Self:
        assert stop is not None
        self.settings.append(settings)
        self.reporters.append(reporter)
        return self

    def train_sequence(
        self, resume: bool | str = False, *, overwrite: bool = False, accept_changes: bool = False
    ) -> None:
        call = {"resume": resume, "overwrite": overwrite, "accept_changes": accept_changes}
        self.calls.append(call)
        if self.error is not None:
            raise self.error


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainer:
    """Return what is trained with instead of `CLTrainer`, in an empty working directory."""
    trainer = Trainer()
    module = ModuleType("plora_cl.training.trainer")
    module.CLTrainer = trainer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "plora_cl.training.trainer", module)
    monkeypatch.chdir(tmp_path)
    return trainer


def train(trainer: Trainer, *argv: str) -> Settings:
    assert main(argv) == 0
    return trainer.settings[-1]


def test_nothing_typed_means_the_defaults_and_a_fresh_start(trainer: Trainer) -> None:
    assert train(trainer) == Settings()
    assert trainer.calls == [{"resume": False, "overwrite": False, "accept_changes": False}]


@pytest.mark.parametrize(
    ("argv", "changed"),
    [
        (["--experiment-name", "2024"], {"experiment_name": "2024"}),
        (["--experiment-dir", "runs"], {"experiment_dir": "runs"}),
        (["--checkpoint-every", "0"], {"checkpoint_every": 0}),
        (["--keep-last-n-checkpoints", "5"], {"keep_last_n_checkpoints": 5}),
        (["--model-name", "no"], {"model_name": "no"}),
        (["--tasks", "a", "b/c", "7"], {"tasks": ("a", "b/c", "7")}),
        (["--tasks", "{path: a, name: first, classes: [x, y]}", "b/c"],
         {"tasks": ({"path": "a", "name": "first", "classes": ["x", "y"]}, "b/c")}),
        (["--tasks", "{path: a, text_column: [text, label], splits: {validation: test}}"],
         {"tasks": ({"path": "a", "text_column": ["text", "label"],
                     "splits": {"validation": "test"}},)}),
        (["--tasks", "[a, {path: b/c}]", "7"], {"tasks": ("a", {"path": "b/c"}, "7")}),
        (["--tasks", "{odd}"], {"tasks": ("{odd}",)}),
        (["--epochs", "010"], {"epochs": 10}),
        (["--batch-size", "4"], {"batch_size": 4}),
        (["--learning-rate", "1e-5"], {"learning_rate": 1e-5}),
        (["--seed", "0"], {"seed": 0}),
        (["--device", "cuda:1"], {"device": "cuda:1"}),
        (["--precision", "bf16"], {"precision": "bf16"}),
        (["--max-train-examples", "9"], {"max_train_examples": 9}),
        (["--max-eval-examples", "9"], {"max_eval_examples": 9}),
        (["--lora-r", "2"], {"lora_r": 2}),
        (["--lora-alpha", "2"], {"lora_alpha": 2}),
        (["--lambda-ewc", "2"], {"lambda_ewc": 2.0}),
        (["--lambda-ortho", ".5"], {"lambda_ortho": 0.5}),
        (["--replay-ratio", "0.5"], {"replay_ratio": 0.5}),
        (["--no-ewc"], {"use_ewc": False}),
        (["--use-lateral"], {"use_lateral": True}),
        (["--use-lateral", "--set", "lateral_rank=4"], {"use_lateral": True, "lateral_rank": 4}),
        (["--no-ewc", "--use-ewc"], {}),
        (["--use-orthogonal"], {"use_orthogonal": True}),
        (["--no-replay", "--no-lateral", "--no-orthogonal"], {}),
        (["--set", "max_length=64", "--set", "shared=embeddings"],
         {"max_length": 64, "shared": "embeddings"}),
        (["--set", "lora_target_modules=[q_lin, v_lin]"],
         {"lora_target_modules": ("q_lin", "v_lin")}),
    ],
)  # fmt: skip
def test_each_flag_changes_its_setting_and_nothing_else(
    argv: list[str], changed: dict[str, Any], trainer: Trainer
) -> None:
    for name in ("a", "b/c", "7", "{odd}"):
        make_task(Path(name), {"x": "one", "y": "two"}, train=2, test=2)
    assert train(trainer, *argv) == Settings().model_copy(update=changed)


@pytest.mark.parametrize(
    ("tasks", "problem"),
    [
        ("{path: a, text_column", "argument --tasks: '{path: a, text_column' is not YAML: "),
        (
            "{path: a, text_colum: b}",
            "text_colum: unknown part of a task; did you mean text_column?",
        ),
        ("{name: a}", "needs exactly one of path, hub, packaged; given: none"),
        ("{path:a}", "unknown part of a task"),
        ("[]", "--tasks: is empty"),
        ("[[a]]", "expected a name, a folder or a mapping"),
    ],
)
def test_a_task_that_is_written_wrong_is_told_in_one_line(
    trainer: Trainer, capsys: pytest.CaptureFixture[str], tasks: str, problem: str
) -> None:
    try:
        code = main(["--tasks", tasks])
    except SystemExit as end:  # the parser's
        code = int(str(end.code))
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ")
    assert problem in line
    assert not trainer.calls


def test_a_typed_flag_beats_the_file_and_an_untyped_one_does_not(
    trainer: Trainer, tmp_path: Path
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("use_ewc: true\nepochs: 9\nseed: 5\n")
    settings = train(trainer, "--config", str(config), "--no-ewc", "--epochs", "3")
    assert (settings.use_ewc, settings.epochs, settings.seed) == (False, 3, 5)


def test_every_flag_that_is_no_setting_is_named_as_a_flag_in_a_file() -> None:
    options = {
        option.removeprefix("--")
        for action in train_parser()._actions
        for option in action.option_strings
        if option.startswith("--") and action.dest not in setting_names()
    }
    flags = options - {"help", "help-all"}
    assert flags
    for flag in flags:
        assert unknown_setting(flag).startswith(f"is not a setting; use the flag --{flag}")


def test_a_preset_is_a_start_that_flags_change(trainer: Trainer) -> None:
    settings = train(trainer, "--preset", "quickstart", "--seed", "3")
    assert (settings.model_name, settings.seed) == ("packaged:minilm-l6", 3)


def test_a_preset_says_what_it_is_and_how_long_it_takes(
    trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    train(trainer, "--preset", "quickstart")
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("Preset quickstart: Three real tasks")
    assert "minutes on two CPU cores" in first
    train(trainer, "--preset", "quickstart", "--quiet", "--overwrite")
    assert capsys.readouterr().out == ""
    shown = train_parser().format_help()
    assert all(f"\n  {name}: {preset_title(name)}\n" in shown for name in preset_names())


@pytest.mark.parametrize(
    ("argv", "call"),
    [
        (["--resume", "auto"], {"resume": "auto", "overwrite": False}),
        (["--overwrite"], {"resume": False, "overwrite": True}),
        (
            ["--resume", "auto", "--accept-changes"],
            {"resume": "auto", "overwrite": False, "accept_changes": True},
        ),
    ],
)
def test_how_to_begin_is_passed_on(argv: list[str], call: dict[str, Any], trainer: Trainer) -> None:
    train(trainer, *argv)
    assert trainer.calls == [{"accept_changes": False, **call}]


def test_the_checkpoint_to_go_on_from_is_passed_on(trainer: Trainer, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_task0_epoch1_batch4.pt"
    path.touch()
    train(trainer, "--resume", str(path))
    assert [call["resume"] for call in trainer.calls] == [str(path)]


def test_a_checkpoint_is_named_as_the_tools_show_it_or_by_its_name_alone(
    trainer: Trainer, tmp_path: Path
) -> None:
    name = "checkpoint_task0_epoch1_batch4.pt"
    path = tmp_path / "mine" / "checkpoints" / name
    path.parent.mkdir(parents=True)
    path.touch()
    (tmp_path / "mine" / "config.yaml").write_text("epochs: 2\n", encoding="utf-8")
    train(trainer, "--resume", f"{tmp_path / 'mine'}@{name}")
    place = ["--experiment-dir", str(tmp_path), "--experiment-name", "mine"]
    train(trainer, *place, "--resume", name)
    assert [call["resume"] for call in trainer.calls] == [str(path)] * 2


@pytest.mark.parametrize("text", ["mine", "experiments/mine"])
def test_an_experiment_in_place_of_a_checkpoint_is_told_how_to_be_resumed(
    trainer: Trainer,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("experiments/mine/checkpoints").mkdir(parents=True)
    assert main(["--resume", text]) == 2
    expected = "to resume the experiment: --experiment-name mine --resume\n"
    assert capsys.readouterr().err.endswith(expected)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("notes.pt", "is not the name of a checkpoint; expected"),
        ("checkpoint_task0_epoch1_batch4.pt", "no such checkpoint"),
    ],
)
def test_nothing_is_loaded_to_find_that_a_checkpoint_is_not_there(
    trainer: Trainer, capsys: pytest.CaptureFixture[str], name: str, problem: str
) -> None:
    assert main(["--resume", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Error: {name}")
    assert problem in line
    assert not trainer.calls


def test_several_values_after_one_set_are_told_how_to_be_given(
    trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--set", "lora_r=4", "lora_alpha=8"])
    assert "lora_alpha=8; --set takes one NAME=VALUE, repeat it for more" in capsys.readouterr().err


def test_nothing_is_loaded_to_find_that_there_is_nothing_to_resume(
    trainer: Trainer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--experiment-dir", str(tmp_path), "--resume"]) == 2
    folder = tmp_path / "default" / "checkpoints"
    assert capsys.readouterr().err == (
        f"Error: No checkpoint found in {folder}: start afresh with --resume auto (or without "
        "--resume), or name another experiment with --experiment-name (in Python: resume='auto', "
        "resume=False, experiment_name)\n"
    )
    assert not trainer.calls


def test_nothing_heavy_is_imported_to_find_that_another_process_has_the_experiment(
    tmp_path: Path,
) -> None:
    script = (
        "import sys; from plora_cl.cli.train.command import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'plora_cl.training.trainer'} & sys.modules.keys(); "
        "print(sorted(heavy)); sys.exit(code)"
    )
    argv = ["--experiment-dir", str(tmp_path), "--resume", "auto"]
    with ExperimentLock.acquire(tmp_path / "default"):
        outcome = subprocess.run(
            [sys.executable, "-c", script, *argv], capture_output=True, text=True, check=False
        )
    assert (outcome.returncode, outcome.stdout) == (2, "[]\n")
    assert f"default is in use by process {os.getpid()} on " in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "argv",
    [
        ["--resume", "--overwrite"],
        ["--epoch", "3"],
        ["--tasks"],
        ["stray"],
        ["--accept-changes"],
        ["--accept-changes", "--overwrite"],
    ],
)
def test_a_usage_error_exits_with_2(
    argv: list[str], trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ")
    assert line.endswith("(see plora-cl train --help)")
    assert not trainer.calls


def test_every_problem_is_a_line_and_nothing_is_trained(
    trainer: Trainer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text("lerning_rate: 1\nepochs: 0\n")
    code = main(["--config", "c.yaml", "--lora-r", "x", "--use-replay"])
    assert code == 2
    assert capsys.readouterr().err.splitlines() == [
        "Error: c.yaml: epochs: 0; expected at least 1",
        "Error: c.yaml: lerning_rate: unknown setting; did you mean learning_rate?",
        "Error: --lora-r: 'x'; expected a whole number",
    ]
    assert not trainer.calls


def test_a_method_that_could_have_no_effect_is_refused(
    trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--use-replay", "--replay-ratio", "0"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("Error: --use-replay: replay_ratio is 0")
    assert "--no-replay" in line
    assert not trainer.calls


def test_what_the_run_refuses_is_an_error_line_without_a_traceback(
    trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer.error = CheckpointNotFoundError("No checkpoint found in experiments/x/checkpoints")
    assert main(["--resume", "auto"]) == 2
    expected = "Error: No checkpoint found in experiments/x/checkpoints\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("undone", [False, True])
def test_a_run_that_was_stopped_is_gone_on_with_unless_it_was_undone(
    trainer: Trainer, undone: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("experiments/default").mkdir(parents=True)
    Path("experiments/default/config.yaml").write_text("seed: 1\n")
    trainer.error, trainer.undone = RunStoppedError("SIGTERM", 143), undone
    assert main(["--overwrite"]) == 143
    assert ("Resume with: plora-cl train" in "".join(capsys.readouterr())) is not undone


def test_an_interrupt_exits_as_shells_expect(
    trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer.error = KeyboardInterrupt()
    assert main([]) == 130
    assert capsys.readouterr().err == "Interrupted\n"


def test_a_bug_keeps_its_traceback(trainer: Trainer) -> None:
    trainer.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        main([])


def test_a_setting_without_effect_is_noted(
    trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    train(trainer, "--no-ewc", "--lambda-ewc", "5", "--set", "top_p=0.5")
    assert capsys.readouterr().err.splitlines() == [
        "Note: lambda_ewc has no effect here: use_ewc is false",
        "Note: top_p has no effect here: use_replay is false",
    ]


def test_quiet_hides_progress_and_shows_results(
    trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    train(trainer, "--quiet")
    reporter = trainer.reporters[-1]
    assert reporter is not None
    reporter.task_started(0, 1, "news", 1)
    reporter.step(StepReport(0, 0, 1, 0, 1, 0.5, 8))
    reporter.activity(Unit("evaluation", 1, 1))
    reporter.checkpoint_saved(Path("a.pt"), "step 1, task 1 in training")
    reporter.task_finished({"news": TaskScore(0.5, 0.5, 0.5)})
    assert capsys.readouterr().out == ""
    reporter.message("Note: a note")
    reporter.table("Results", ["metric", "value"], [["accuracy", "0.5"]])
    assert capsys.readouterr().out.splitlines()[:2] == ["Note: a note", "Results"]


def test_every_setting_is_a_flag_or_reachable_by_set(trainer: Trainer) -> None:
    others = set(Settings.model_fields) - set(flag_settings())
    unchanged = [f"--set={name}={yaml_default(name)}" for name in sorted(others)]
    assert others
    assert train(trainer, *unchanged) == Settings()


def yaml_default(name: str) -> str:
    default = Settings.model_fields[name].default
    return "null" if default is None else str(default)


def test_help_mentions_every_flag_and_every_setting_with_its_default() -> None:
    text = " ".join(train_parser().format_help().split())
    flags = {option for action in train_parser()._actions for option in action.option_strings}
    listed = set(re.findall(r"--?[a-z][a-z-]*", text))
    assert flags <= listed
    for name in Settings.model_fields:
        shown = flag_of(name) if name in flag_settings() else f" {name}: "
        assert shown in text
    assert "(default: 0.001)" in text
    assert "warmup_ratio: 0.1" in text


def test_switches_come_in_pairs() -> None:
    assert flag_of("use_orthogonal") == "--use-orthogonal"
    assert flag_of("use_orthogonal", on=False) == "--no-orthogonal"


def test_what_is_loaded_is_told_at_once_unless_quiet(
    trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = train(trainer)
    loading = f"Loading {settings.model_name} and {len(settings.tasks)} tasks for "
    loading += "experiments/default ...\n"
    assert capsys.readouterr().out == loading
    train(trainer, "--quiet")
    assert capsys.readouterr().out == ""
