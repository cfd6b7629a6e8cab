"""A model as a checkpoint holds it, without the run that learned it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plora_cl.checkpoint.format.manifest import BASE_WEIGHTS, MODEL_FILES
from plora_cl.checkpoint.snapshot.loading import Resumable
from plora_cl.compute.devices import Accelerator, make_accelerator
from plora_cl.config.locations import found_again
from plora_cl.config.precedence import validate
from plora_cl.config.schema import Settings, completed
from plora_cl.errors import CheckpointError, IncompatibleCheckpointError, ModelError
from plora_cl.inference.task_choice import TaskChoice
from plora_cl.methods.base import below
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.model.encoder import load_encoder, load_tokenizer
from plora_cl.pretrained.configuration_digest import configuration_digest
from plora_cl.pretrained.files import from_files
from plora_cl.state import StateDict
from plora_cl.training.build import build_model
from plora_cl.training.run.components import MODEL, ROUTER

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LearnedTask:
    """A task that a model can predict.

    Attributes:
        name: Unique within the stream.
        classes: Class names, in the order of the logits.
        is_finished: Whether it was learned to its end when the checkpoint was saved.
    """

    name: str
    classes: tuple[str, ...]
    is_finished: bool


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Everything that predictions need.

    Attributes:
        classifier: In evaluation mode, on the device of ``accelerator``.
        tokenizer: Of the encoder.
        tasks: Those that have a head, in the order of the stream.
        settings: Of the run.
        accelerator: Device and precision.
        choice: Infers the task of a text; None where the run has no router.
        base_digest: SHA-256 of the object with the base weights.
    """

    classifier: ContinualClassifier
    tokenizer: PreTrainedTokenizerBase
    tasks: Sequence[LearnedTask]
    settings: Settings
    accelerator: Accelerator
    choice: TaskChoice | None
    base_digest: str


def settings_of(resumable: Resumable) -> Settings:
    """Return the settings that a checkpoint was computed with.

    Raises:
        CheckpointError: It has none: a program other than ``plora-cl train`` saved it.
        SettingsError: This version cannot read them.
    """
    saved, path = resumable.snapshot.facts.settings, resumable.entry.path
    if not saved:
        raise CheckpointError(
            f"{path} has no settings: CheckpointManager saved it for a loop of its own, and only "
            "that program can rebuild the model; expected a checkpoint of plora-cl train"
        )
    return validate(found_again(completed(saved), path.parent.parent), source=str(path))


def load_model(
    resumable: Resumable, *, device: str, sharing: LoadedModel | None = None
) -> LoadedModel:
    """Return the model of a verified checkpoint.

    The process-wide random generators keep their state.

    Args:
        resumable: The checkpoint, with all that it refers to.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        sharing: A model whose base weights this one uses too, where they were not read.

    Raises:
        CheckpointError: The checkpoint does not hold such a model.
        ModelError: The device or the encoder is missing.
    """
    snapshot, settings = resumable.snapshot, settings_of(resumable)
    tasks = _tasks(snapshot.facts.identity, snapshot.cursor, snapshot.trained_tasks)
    accelerator = _accelerator(settings, device)
    encoder, tokenizer = _encoder(resumable, settings)
    with torch.random.fork_rng(_cuda(accelerator)):
        classifier = build_model(settings, encoder)
        for task in tasks:
            classifier.grow(len(task.classes))
    _fill(classifier, resumable)
    classifier.requires_grad_(False)
    classifier.to(accelerator.device).eval()
    base_digest = snapshot.objects[BASE_WEIGHTS].sha256
    if BASE_WEIGHTS not in resumable.objects:
        assert sharing is not None
        assert sharing.base_digest == base_digest
        _share(classifier, sharing.classifier)
    routes = below(ROUTER, resumable.objects)
    return LoadedModel(
        classifier=classifier,
        tokenizer=tokenizer,
        tasks=tasks,
        settings=settings,
        accelerator=accelerator,
        choice=TaskChoice.of(classifier, routes, abstain=settings.router_abstain),
        base_digest=base_digest,
    )


def _tasks(
    identity: Mapping[str, Any], cursor: StateDict, trained: Sequence[str]
) -> list[LearnedTask]:
    data = identity.get("data")
    if data is None:
        raise IncompatibleCheckpointError(
            "the checkpoint was written before tasks were recorded one by one, and does not name "
            "its classes: resume it once, which writes a new one"
        )
    # A model always has the structure of tasks 0..cursor.task
    return [
        LearnedTask(task["name"], tuple(task["classes"]), is_finished=task["name"] in trained)
        for task in data[: cursor["task"] + 1]
    ]


def _accelerator(settings: Settings, device: str) -> Accelerator:
    """Return the device in the precision of the run, or in float32 where it has no such one."""
    try:
        return make_accelerator(device=device, precision=settings.precision)
    except ModelError as error:
        if settings.precision == "fp32":
            raise
        plain = make_accelerator(device=device, precision="fp32")
        log.warning("%s; predicting in fp32: logits differ in their last digits", error)
        return plain


def _cuda(accelerator: Accelerator) -> list[torch.device]:
    return [accelerator.device] if accelerator.device.type == "cuda" else []


def _encoder(
    resumable: Resumable, settings: Settings
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return encoder and tokenizer, from the checkpoint alone if it has their files."""
    files = resumable.objects.get(MODEL_FILES)
    if files is not None:
        encoder, tokenizer = from_files(files)
    else:  # written before checkpoints had them
        encoder, tokenizer = load_encoder(settings.model_name), load_tokenizer(settings.model_name)
    if configuration_digest(encoder) != resumable.snapshot.facts.identity.get("encoder"):
        log.warning(
            "%s: the encoder is configured differently than in training, perhaps by another "
            "version of transformers; predictions may differ",
            resumable.entry.path,
        )
    return encoder, tokenizer


def _fill(classifier: ContinualClassifier, resumable: Resumable) -> None:
    """Put the weights of a checkpoint into a model of its structure.

    Raises:
        IncompatibleCheckpointError: A part is missing, or has other tensors.
    """
    saved = {**below(MODEL, resumable.objects), **below(MODEL, resumable.snapshot.state)}
    for name, part in classifier.parts().items():
        if name == "base" and BASE_WEIGHTS not in resumable.objects:
            continue
        if name not in saved:
            raise IncompatibleCheckpointError(f"{resumable.entry.path}: it has no model/{name}")
        part.load_state_dict(dict(saved[name]))


def _share(classifier: ContinualClassifier, other: ContinualClassifier) -> None:
    """Let two models use the same memory for their base weights, which never change."""
    own, theirs = classifier.part("base").state_dict(), other.part("base").state_dict()
    for name, tensor in own.items():
        tensor.data = theirs[name].data
