"""The composition root: settings become objects here, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from plora_cl.cache_folder import default_cache_dir
from plora_cl.checkpoint.disk.filesystem import Filesystem
from plora_cl.checkpoint.format.manifest import ObjectRef
from plora_cl.checkpoint.snapshot.constants import begin_hashing
from plora_cl.checkpoint.snapshot.snapshot import RunFacts
from plora_cl.checkpoint.snapshot.writer import BackgroundWriter, InPlaceWriter, Writer
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.compute.devices import Accelerator, make_accelerator
from plora_cl.compute.random_state import Generators
from plora_cl.config.schema import Settings, experiment_folder, holds_out, identity, recordable
from plora_cl.data.loading import load_tasks
from plora_cl.data.sources.declaration import parse_tasks
from plora_cl.data.task import Task
from plora_cl.evaluation.costs import Costs
from plora_cl.evaluation.matrix import ScoreMatrix
from plora_cl.evaluation.measurement import Measurement
from plora_cl.evaluation.predictor import Scorer
from plora_cl.evaluation.routing.router import Router
from plora_cl.evaluation.runlog import RunLog
from plora_cl.evaluation.under_way import UnderWay
from plora_cl.methods.base import ContinualMethod, MethodSetup, MethodStack
from plora_cl.methods.building import methods_of
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.model.encoder import load_encoder, load_tokenizer, require_positions
from plora_cl.pretrained.configuration_digest import configuration_digest
from plora_cl.pretrained.files import model_files
from plora_cl.state import StateDict, TensorPart
from plora_cl.training.own_methods import copies, methods_identity
from plora_cl.training.reporting import Reporter
from plora_cl.training.run.checkpointer import Checkpointer
from plora_cl.training.run.components import Components, Plan
from plora_cl.training.run.early_stopping import EarlyStopping
from plora_cl.training.run.run import Run
from plora_cl.training.run.stage import stages_of
from plora_cl.training.stopping import StopRequest
from plora_cl.units import Progress, Unit


def build_run(
    settings: Settings,
    reporter: Reporter,
    stop: StopRequest,
    disk: Filesystem | None = None,
    *,
    methods: Sequence[ContinualMethod] = (),
) -> Run:
    """Load the tasks and the encoder, and put a run together that has not begun.

    Args:
        settings: What to build.
        reporter: Told about progress.
        stop: Polled between units of work, also while tasks are read.
        disk: What the run writes with; the local disk by default.
        methods: Those of the user, which join the ones that settings switch on.

    Raises:
        RunStoppedError: ``stop`` requested it.
        DataError: A task cannot be read.
        ModelError: The encoder cannot be loaded, or lacks what the settings ask for.
    """
    for source in parse_tasks(settings.tasks):
        source.require_there()  # before a model is fetched
    random = Generators.seeded(settings.seed)
    with random.in_effect():  # layers that the encoder's files lack are drawn from them
        return _built(settings, random, reporter, stop, disk or Filesystem(), methods)


def _built(
    settings: Settings,
    random: Generators,
    reporter: Reporter,
    stop: StopRequest,
    disk: Filesystem,
    methods: Sequence[ContinualMethod],
) -> Run:
    accelerator = make_accelerator(
        device=settings.device,
        precision=settings.precision,
        deterministic=settings.deterministic,
    )

    def progress(unit: Unit) -> None:
        reporter.activity(unit)
        stop.check()

    tokenizer = load_tokenizer(settings.model_name)
    setup = _setup(settings, tokenizer, accelerator)
    encoder = load_encoder(settings.model_name)
    require_positions(encoder, settings.max_length)
    files = TensorPart(model_files(encoder, tokenizer))  # before a use leaves its traces in them
    model = build_model(settings, encoder).to(accelerator.device)
    base = begin_hashing(model.part("base"))
    tasks = load_stream(settings, tokenizer, progress)
    under_way = UnderWay()
    writer: Writer = BackgroundWriter() if settings.async_checkpoint else InPlaceWriter()
    path = experiment_folder(settings) / "results" / "run_log.jsonl"
    run_log = RunLog(path, submit=lambda job: writer.submit(lambda: (disk.require(), job())))
    components = Components(
        model=model,
        stages=stages_of(
            tasks, joint=settings.joint, batch_size=settings.batch_size, seed=settings.seed
        ),
        methods=MethodStack([*methods_of(settings, setup), *copies(methods)]),
        accelerator=accelerator,
        plan=_plan(settings),
        early_stopping=EarlyStopping(
            patience=settings.early_stopping_patience,
            min_delta=settings.early_stopping_min_delta,
            metric=settings.early_stopping_metric,
        ),
        matrix=ScoreMatrix(len(tasks)),
        costs=Costs(),
        run_log=run_log,
        random=random,
        under_way=under_way,
        router=_router(settings, model, under_way) if settings.use_router else None,
        model_files=files,
    )
    run_identity = {
        **identity(settings),
        **methods_identity(methods),
        "encoder": configuration_digest(model.encoder),
        "data": data_identity(tasks),
    }
    checkpointer = _checkpointer(settings, components, base, writer, reporter, disk, run_identity)
    measurement = Measurement(
        Scorer(
            model,
            batch_size=settings.eval_batch_size,
            autocast=accelerator.autocast,
            precision=settings.precision,
            under_way=under_way,
        ),
        components.matrix,
        components.costs,
        run_log,
        under_way,
        base_digest=lambda: checkpointer.base_digest,
        router=components.router,
    )
    return Run(components, measurement, checkpointer, reporter, stop, disk)


def build_model(settings: Settings, encoder: nn.Module) -> ContinualClassifier:
    """Return the model of a run before its first task; ``encoder`` becomes part of it.

    Raises:
        ModelError: The encoder lacks what the settings ask for.
    """
    return ContinualClassifier(
        encoder,
        pooling=settings.pooling,
        composition=settings.composition,
        shared=settings.shared,
        task_adapters=settings.task_adapters,
        joint=settings.joint,
        lora_r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        lora_target_modules=settings.lora_target_modules,
        lateral_rank=settings.lateral_rank if settings.use_lateral else None,
        seed=settings.seed,
    )


def load_stream(
    settings: Settings, tokenizer: PreTrainedTokenizerBase, progress: Progress
) -> Sequence[Task]:
    """Return the tasks that a run of these settings learns.

    Raises:
        DataError: A task cannot be read.
    """
    return load_tasks(
        settings.tasks,
        tokenizer,
        max_length=settings.max_length,
        max_train_examples=settings.max_train_examples,
        max_eval_examples=settings.max_eval_examples,
        max_train_examples_per_class=settings.max_train_examples_per_class,
        max_validation_examples_per_class=settings.max_validation_examples_per_class,
        seed=settings.seed,
        hold_out=holds_out(settings),
        cache_dir=_cache_dir(settings),
        progress=progress,
    )


def _cache_dir(settings: Settings) -> Path:
    return Path(settings.cache_dir) if settings.cache_dir else default_cache_dir()


def _router(settings: Settings, model: ContinualClassifier, under_way: UnderWay) -> Router:
    return Router(
        model,
        examples=settings.router_examples,
        abstain=settings.router_abstain,
        batch_size=settings.eval_batch_size,
        seed=settings.seed,
        under_way=under_way,
    )


def _checkpointer(
    settings: Settings,
    components: Components,
    base: Future[ObjectRef],
    writer: Writer,
    reporter: Reporter,
    disk: Filesystem,
    run_identity: StateDict,
) -> Checkpointer:
    store = CheckpointStore(experiment_folder(settings) / "checkpoints", disk)

    def before_commit() -> None:
        disk.require()
        components.run_log.sync()

    return Checkpointer(
        store if settings.checkpoint_every else None,
        writer=writer,
        every=settings.checkpoint_every,
        keep_last=settings.keep_last_n_checkpoints,
        disk_budget=settings.checkpoint_disk_budget,
        base=base,
        facts=RunFacts.recorded(
            seed=settings.seed,
            settings=recordable(settings),
            identity=run_identity,
            environment=components.accelerator.environment(),
        ),
        before_commit=before_commit,
        reporter=reporter,
    )


def data_identity(tasks: Sequence[Task]) -> list[StateDict]:
    """Return what tells these tasks from others that are called the same."""
    return [
        {
            "name": task.name,
            "classes": list(task.classes),
            "examples": len(task.train),
            "train": task.train.digest,
            "validation": task.validation.digest,
            "test": task.test.digest,
        }
        for task in tasks
    ]


def _plan(settings: Settings) -> Plan:
    return Plan(
        epochs=settings.epochs,
        accumulation=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_ratio=settings.warmup_ratio,
        max_grad_norm=settings.max_grad_norm,
        balanced=settings.class_weights == "balanced",
    )


def _setup(
    settings: Settings, tokenizer: PreTrainedTokenizerBase, accelerator: Accelerator
) -> MethodSetup:
    return MethodSetup(
        seed=settings.seed,
        tokenizer=tokenizer,
        max_length=settings.max_length,
        accelerator=accelerator,
        cache_dir=_cache_dir(settings),
    )
