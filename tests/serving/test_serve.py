from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from plora_cl import load_experiment
from plora_cl.cli.main import main
from serving.client import Server, serving

TEXTS = ["cat meow paw", "wet cloud drops", "oven bake", "dog bark"]


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, "--request-texts", "50", "--text-characters", "1000") as server:
        yield server


def test_answers_are_what_the_experiment_predicts(server: Server, folder: Path) -> None:
    experiment = load_experiment(folder)
    for task in (None, "animals"):
        status, answer = server.ask({"texts": TEXTS, "task": task})
        expected = experiment.predict(TEXTS, task, batch_size=64)
        assert (status, answer["checkpoint"]) == (200, experiment.checkpoint.name)
        assert answer["predictions"] == [prediction.to_plain() for prediction in expected]


def test_requests_at_once_are_answered_each_with_its_own_predictions(server: Server) -> None:
    questions = [{"texts": [text], "task": task} for text in TEXTS for task in ("animals", "food")]
    alone = [server.ask(question)[1]["predictions"][0] for question in questions]
    with ThreadPoolExecutor(16) as clients:
        together = list(clients.map(server.ask, questions * 20))
    for (status, answer), expected in zip(together, alone * 20, strict=True):
        (found,) = answer["predictions"]
        assert status == 200
        assert (found["task"], found["label"]) == (expected["task"], expected["label"])
        assert found["probability"] == pytest.approx(expected["probability"], rel=1e-5)
    metrics = dict(
        line.rsplit(" ", 1)
        for line in server.get("/metrics").splitlines()
        if not line.startswith("#")
    )
    assert float(metrics["plora_cl_texts_total"]) > float(metrics["plora_cl_batch_texts_count"])


@pytest.mark.parametrize(
    ("question", "status", "problem"),
    [
        ({"texts": ["a"], "task": "foods"}, 422, "unknown task 'foods'; expected one of"),
        ({"texts": []}, 422, "at least 1 item"),
        ({"texts": ["a"] * 51}, 422, "at most 50 items"),
        ({"texts": ["a" * 1001]}, 422, "at most 1000 characters"),
        ({"texts": "a day"}, 422, "valid list"),
        ({"texts": ["a"], "tsk": "food"}, 422, "not permitted"),
        (b"{", 422, "JSON decode error"),
        (b" " * (5 << 20), 413, "more than 4194304 bytes"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(
    server: Server, question: object, status: int, problem: str
) -> None:
    got, answer = server.ask(question)
    assert got == status
    assert problem in str(answer["detail"])
    assert len(str(answer)) < 1000
    assert server.ask({"texts": ["a day"], "task": "food"})[0] == 200


def test_it_says_what_it_serves(server: Server) -> None:
    health = server.get("/health")
    assert (health["status"], health["tasks"]) == ("ok", ["animals", "weather", "food"])
    assert server.get("/tasks")[0]["classes"] == ["cat", "dog"]
    assert "/predict" in server.get("/openapi.json")["paths"]


def test_no_request_is_lost_while_a_newer_checkpoint_is_taken_up(
    folder: Path, tmp_path: Path
) -> None:
    """The folder first has the checkpoint of the first task, then those that follow."""
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    later = [p for p in (copy / "checkpoints").glob("*.pt") if "_task0_" not in p.name]
    for path in later:
        path.rename(tmp_path / path.name)
    answers: list[tuple[int, str]] = []
    with serving(copy, "--poll", "1") as server:
        enough = threading.Event()

        def client() -> None:
            while not enough.is_set():
                status, answer = server.ask({"texts": TEXTS, "task": "animals"})
                answers.append((status, answer.get("checkpoint", "")))

        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        before = server.get("/health")["checkpoint"]
        for path in sorted(later):
            (tmp_path / path.name).rename(path)
        newest = max(later).name
        while server.get("/health")["checkpoint"] != newest:
            time.sleep(0.1)
        server.ask({"texts": TEXTS})
        enough.set()
        for thread in clients:
            thread.join()
    assert {name for _, name in answers} >= {before, newest}
    assert {status for status, _ in answers} == {200}


def test_a_signal_ends_it_when_every_request_is_answered(folder: Path) -> None:
    many = {"texts": ["the cat is on my day"] * 200, "task": "animals"}
    with serving(folder) as server, ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(server.ask, many) for _ in range(8)]
        while not any(future.done() for future in asked):
            time.sleep(0.001)
        server.process.terminate()
        answers = [future.result() for future in asked]
        server.process.wait(60)
    assert server.process.returncode == 0
    assert [status for status, _ in answers] == [200] * 8
    assert all(len(answer["predictions"]) == 200 for _, answer in answers)


def test_a_mistake_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tmp_path)]) == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(folder), "--port", port]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("Error: no experiment in")
    assert errors[1].startswith(f"Error: cannot listen on 127.0.0.1:{port}")
    assert len(errors) == 2
