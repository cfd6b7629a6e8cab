"""What other libraries offer to save the same training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save
from torch.optim import AdamW
from transformers import (
    DistilBertForSequenceClassification,
    Trainer,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

from plora_cl.state import TensorPart
from saves.subject import Subject
from saves.timing import sync_tree
from saves.ways import InFolders
from saves.workplace import CLASSES, quiet


class AccelerateState(InFolders):
    """`Accelerator.save_state` of the same model, optimizer and schedule."""

    name = "accelerate save_state"
    note = "flushed by this script; Fisher and anchors as a registered object"

    def __init__(self, subject: Subject, folder: Path) -> None:
        super().__init__(subject, folder)
        self._accelerator = Accelerator(cpu=True)
        self._accelerator.prepare(subject.model, subject.optimizer, subject.scheduler)
        self._accelerator.register_for_checkpointing(TensorPart(subject.memory()))

    def save(self) -> None:
        """See `Way`."""
        self.saves += 1
        self._accelerator.save_state(str(self.path))

    def load(self) -> None:
        """See `Way`; nothing is verified."""
        self._accelerator.load_state(str(self.path))


class Distributed(InFolders):
    """`torch.distributed.checkpoint.save` in a single process."""

    name = "torch.distributed.checkpoint save"
    note = "flushes its files itself; folders are flushed by this script"

    def save(self) -> None:
        """See `Way`."""
        self.saves += 1
        save(self.subject.everything(), checkpoint_id=self.path, no_dist=True)

    def load(self) -> None:
        """See `Way`; reads into the tensors that are there, nothing is verified."""
        state = self.subject.everything()
        load(state, checkpoint_id=self.path, no_dist=True)
        self.subject.optimizer.load_state_dict(state["optimizer"])
        self.subject.scheduler.load_state_dict(state["scheduler"])


class DistributedAsync(Distributed):
    """`torch.distributed.checkpoint.async_save` with memory that is used again for each save."""

    name = "torch.distributed.checkpoint async_save"
    note = "memory for the copy is kept, so a save waits for the one before"

    def __init__(self, subject: Subject, folder: Path) -> None:
        super().__init__(subject, folder)
        self._stager = DefaultStager(StagingOptions(False, False, False, False))
        self._future: Future[Any] | None = None

    @property
    def under_way(self) -> bool:
        """Whether the last save is not written yet."""
        return self._future is not None and not self._future.done()

    def save(self) -> None:
        """See `Way`."""
        if self._future is not None:
            self._future.result()
        self.saves += 1
        future = async_save(
            self.subject.everything(),
            checkpoint_id=self.path,
            no_dist=True,
            async_stager=self._stager,
        )
        assert isinstance(future, Future)
        self._future = future

    def finish(self) -> float:
        """See `Way`."""
        assert self._future is not None
        self._future.result()
        sync_tree(self.path)
        return time.perf_counter()


class HuggingFaceTrainer(InFolders):
    """The checkpoint of `transformers.Trainer` for a PEFT model of the same shapes.

    Five adapters on q, k, v and out with a head and layer norms of their own, which PEFT keeps in
    ``modules_to_save``; the last adapter is in training.
    """

    name = "transformers Trainer checkpoint"
    note = "flushed by this script; all adapters, no base, no Fisher, no anchors"

    def __init__(self, subject: Subject, folder: Path, *, encoder: Path, tasks: int) -> None:
        super().__init__(subject, folder)
        quiet()
        model = DistilBertForSequenceClassification.from_pretrained(encoder, num_labels=CLASSES)
        setattr(model, "pre_classifier", nn.Identity())  # noqa: B010 - declared as a Linear
        config: Mapping[str, Any] = {
            "r": 8,
            "lora_alpha": 16,
            "lora_dropout": 0.05,
            "target_modules": ["q_lin", "k_lin", "v_lin", "out_lin"],
            "modules_to_save": ["classifier", "LayerNorm", "sa_layer_norm", "output_layer_norm"],
        }
        peft = get_peft_model(model, LoraConfig(**config), adapter_name="task0")
        for task in range(1, tasks):
            peft.add_adapter(f"task{task}", LoraConfig(**config))
        peft.set_adapter(f"task{tasks - 1}")
        self.parameters = [p for p in peft.parameters() if p.requires_grad]
        self._optimizer = AdamW(self.parameters, lr=1e-4)
        self._scheduler = get_linear_schedule_with_warmup(self._optimizer, 0, 10**6)
        for parameter in self.parameters:
            parameter.grad = parameter.detach().clone()
        self._model = peft
        self._trainer = Trainer(
            model=peft,
            args=TrainingArguments(
                output_dir=str(folder),
                use_cpu=True,
                report_to="none",
                save_strategy="steps",
                save_steps=1,
                logging_strategy="no",
                disable_tqdm=True,
            ),
            optimizers=(self._optimizer, self._scheduler),
        )

    def step(self) -> None:
        """See `Way`."""
        super().step()
        self._optimizer.step()
        self._scheduler.step()

    def save(self) -> None:
        """See `Way`."""
        self.saves += 1
        self._trainer.state.global_step = self.saves
        # What the training loop of `Trainer` calls when `should_save` is set
        self._trainer._save_checkpoint(self._model, trial=None)

    def load(self) -> None:
        """See `Way`; nothing is verified."""
        path = str(self.path)
        self._trainer._load_from_checkpoint(path)
        self._trainer._load_optimizer_and_scheduler(path)
        self._trainer._load_rng_state(path)
