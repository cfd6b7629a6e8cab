"""The HTTP interface: predictions, tasks, health and metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field, create_model

from plora_cl.errors import PloraError
from plora_cl.inference.experiment import Experiment
from plora_cl.inference.predictions import Predictions
from plora_cl.serving.batcher import Batcher, ClosedError, QueueFullError
from plora_cl.serving.body_limit import BodyLimit
from plora_cl.serving.follower import Follower
from plora_cl.serving.limits import Limits
from plora_cl.serving.metrics import Metrics, Observe


class PredictionOut(BaseModel):
    """The prediction of one text; see `plora_cl.Prediction`."""

    label: str
    probability: float
    task: str
    task_probability: float
    abstained: bool
    probabilities: dict[str, float]


class Answer(BaseModel):
    """Predictions in the order of the texts, and the checkpoint that made them."""

    checkpoint: str
    predictions: list[PredictionOut]


class TaskOut(BaseModel):
    """A task that can be predicted."""

    name: str
    classes: list[str]
    is_finished: bool


class Health(BaseModel):
    """What is served."""

    status: str
    checkpoint: str
    tasks: list[str]
    infers_tasks: bool
    waiting_texts: int


class _Served(list[Any]):
    """Predictions of a batch, with the checkpoint that made them."""

    def __init__(self, checkpoint: str, predictions: Sequence[Any]) -> None:
        super().__init__(predictions)
        self.checkpoint = checkpoint


def create_app(experiment: Experiment, *, limits: Limits | None = None, poll: float = 5) -> FastAPI:
    """Return an ASGI application that serves an experiment.

    Args:
        experiment: What to begin with.
        limits: What is accepted.
        poll: Seconds between two looks for a newer checkpoint; 0 serves this one for good.
    """
    limits = limits or Limits()
    metrics = Metrics()
    follower = Follower(experiment, seconds=poll, on_swap=metrics.swapped)

    def predict(texts: Sequence[str], tasks: Sequence[str | None]) -> _Served:
        now = follower.experiment
        found: Predictions = now.predict(texts, tasks, batch_size=limits.batch_texts)
        return _Served(now.checkpoint.name, found)

    batcher: Batcher[_Served] = Batcher(
        predict,
        lambda all_, first, last: _Served(all_.checkpoint, all_[first:last]),
        batch_texts=limits.batch_texts,
        queue_texts=limits.queue_texts,
        on_batch=metrics.predicted,
    )
    metrics.watch_queue(lambda: batcher.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        follower.start()
        yield
        follower.stop()
        await batcher.close()

    app = FastAPI(title="P-LoRA-CL", version="1", lifespan=lifespan)
    app.add_middleware(BodyLimit, most_bytes=limits.body_bytes)
    app.add_middleware(Observe, metrics=metrics)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Without the input, which may be as long as a body
        problems = [{key: e[key] for key in ("type", "loc", "msg")} for e in error.errors()]
        return JSONResponse({"detail": problems}, status_code=422)

    async def predict_texts(asked: Any) -> Answer:
        return await _answer(batcher, follower.experiment, asked)

    predict_texts.__annotations__["asked"] = _question(limits)  # its bounds are those of a server
    app.post("/predict", summary="Predict texts")(predict_texts)

    @app.get("/tasks", summary="Tasks and their classes")
    def tasks() -> list[TaskOut]:
        return [
            TaskOut(name=t.name, classes=list(t.classes), is_finished=t.is_finished)
            for t in follower.experiment.tasks
        ]

    @app.get("/health", summary="Whether the server answers, and with what")
    async def health() -> Health:
        now = follower.experiment
        return Health(
            status="ok",
            checkpoint=now.checkpoint.name,
            tasks=[task.name for task in now.tasks],
            infers_tasks=now.infers_tasks,
            waiting_texts=batcher.waiting,
        )

    @app.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _question(limits: Limits) -> Any:
    """Return the schema of a request within ``limits``."""
    text = Annotated[str, Field(max_length=limits.text_characters)]
    texts = Annotated[list[text], Field(min_length=1, max_length=limits.request_texts)]
    return create_model(
        "Question",
        __config__=ConfigDict(extra="forbid"),
        __doc__="Texts to predict.",
        texts=(texts, Field(examples=[["The team won the cup"]])),
        task=(str | None, Field(None, description="Of all texts; null infers each one's task")),
    )


async def _answer(batcher: Batcher[_Served], now: Experiment, asked: Any) -> Answer:
    names = [task.name for task in now.tasks]
    if asked.task is None and not now.infers_tasks:
        raise HTTPException(422, f"the run has no router: name the task, one of {names}")
    if asked.task is not None and asked.task not in names:
        raise HTTPException(422, f"unknown task {asked.task!r}; expected one of {names}")
    try:
        found = await batcher.submit(asked.texts, [asked.task] * len(asked.texts))
    except QueueFullError:
        raise HTTPException(503, "too many texts wait", {"Retry-After": "1"}) from None
    except ClosedError:
        raise HTTPException(503, "shutting down", {"Retry-After": "5"}) from None
    except PloraError as error:
        raise HTTPException(422, str(error)) from error
    predictions = [PredictionOut(**prediction.to_plain()) for prediction in found]
    return Answer(checkpoint=found.checkpoint, predictions=predictions)
