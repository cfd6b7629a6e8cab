"""Train a LoRA adapter with `transformers.Trainer`. Kill it at any instant, and start it again.

::

    python examples/transformers_trainer.py runs/trainer

It ends with the same weights, optimizer and logged losses, to the bit, as a run that nobody killed.
What that takes is `ExactCheckpoints`; docs/checkpoint-library.md says why it is what it is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments, set_seed

from plora_cl.checkpoint import (
    CheckpointManager,
    CheckpointNotFoundError,
    Stateful,
    load_checkpoint,
    split_module,
)
from small_task import read_examples, tiny_model

# What `Trainer` counts for its next log; `TrainerState` has only what was logged.
COUNTERS = (
    "_tr_loss",
    "_total_loss_scalar",
    "_globalstep_last_logged",
    "_initial_global_step",
    "current_flos",
)


class ExactCheckpoints(TrainerCallback):
    """Saves before each step but the first, and at the end; resumes at the same instant."""

    def __init__(self, trainer: Trainer, folder: Path, identity: dict[str, Any]) -> None:
        self.trainer, self.folder, self.identity = trainer, folder, identity

    def state_dict(self) -> dict[str, Any]:
        """Return the progress of the trainer."""
        counters = {name: getattr(self.trainer, name) for name in COUNTERS}
        return {"state": asdict(self.trainer.state), "counters": counters}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore the progress of the trainer."""
        vars(self.trainer.state).update(state["state"])
        vars(self.trainer).update(state["counters"])

    def resume_folder(self, folder: str) -> str | None:
        """Fill ``folder``, which tells `Trainer.train` at which step it starts, and return it."""
        try:
            state = load_checkpoint(self.folder).snapshot.state["trainer"]["state"]
        except CheckpointNotFoundError:
            return None
        if state["global_step"] >= state["max_steps"]:
            state["global_step"] = sys.maxsize  # else a finished run would train one more step
        TrainerState(**state).save_to_json(f"{folder}/trainer_state.json")
        self.trainer.save_model(folder)  # required; `on_train_begin` replaces it
        return folder

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Open the folder, and restore everything."""
        adapter, base = split_module(parts["model"])
        components: dict[str, Stateful] = {"adapter": adapter, "trainer": self}
        components |= {name: parts[name] for name in ("optimizer", "lr_scheduler")}
        fixed: dict[str, Any] = {"constants": {"base": base}, "identity": self.identity}
        self.manager = CheckpointManager(self.folder, components, **fixed)
        self.start = self.manager.resume()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save; all of the step before is logged and evaluated by now."""
        if state.global_step > self.start:
            self.manager.save(state.global_step)
        else:
            self.manager.resume()  # again: the data loader has drawn random numbers since

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save the end, unless the run was finished before."""
        if state.global_step > self.start:
            self.manager.save(state.global_step)
        self.manager.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Train to the last step from wherever the folder stands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of the experiment")
    parser.add_argument("--text", type=Path, help="label<TAB>text a line; default: BBC news")
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args(argv)

    set_seed(0)
    examples, classes, digest = read_examples(arguments.text)
    training = TrainingArguments(
        output_dir=str(arguments.folder / "trainer"),
        max_steps=arguments.steps,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        warmup_steps=3,
        logging_steps=5,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(tiny_model(classes), training, train_dataset=examples)
    checkpoints = ExactCheckpoints(
        trainer, arguments.folder, {"text": digest, "steps": arguments.steps}
    )
    trainer.add_callback(checkpoints)
    with tempfile.TemporaryDirectory() as folder:
        trainer.train(resume_from_checkpoint=checkpoints.resume_folder(folder))
    losses = sum("loss" in entry for entry in trainer.state.log_history)  # others: one each start
    print(f"{trainer.state.global_step} steps, {losses} losses logged")


if __name__ == "__main__":
    main()
