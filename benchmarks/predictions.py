"""Examples per second of single predictions, of one call, and of clients of a server, interleaved.

Usage: python benchmarks/predictions.py EXPERIMENT [--texts 512] [--clients 16] [--rounds 3]
"""

from __future__ import annotations

import argparse
import http.client
import json
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from plora_cl import Experiment, load_experiment

WORDS = [
    "the",
    "a",
    "very",
    "and",
    "with",
    "of",
    "is",
    "was",
    "on",
    "it",
    "my",
    "day",
    "market",
    "game",
    "vote",
    "film",
    "star",
    "team",
    "price",
    "court",
    "law",
    "player",
    "season",
    "company",
    "share",
    "album",
    "book",
    "science",
    "space",
    "doctor",
    "virus",
    "phone",
    "network",
]


def texts_of(count: int) -> list[str]:
    """Return texts of 5 to 60 words."""
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(WORDS, draw.integers(5, 60))) for _ in range(count)]


def one_by_one(experiment: Experiment, texts: Sequence[str], tasks: Sequence[str]) -> list[str]:
    """Predict each text in a call of its own."""
    found = [experiment.predict([t], task)[0] for t, task in zip(texts, tasks, strict=True)]
    return [prediction.label for prediction in found]


def one_call(experiment: Experiment, texts: Sequence[str], tasks: Sequence[str]) -> list[str]:
    """Predict all texts at once."""
    return experiment.predict(texts, tasks).labels


def over_http(
    address: tuple[str, int], texts: Sequence[str], tasks: Sequence[str], clients: int
) -> list[str]:
    """Ask for one text a request, from several clients at once, each with one connection."""
    labels = [""] * len(texts)

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(*address, timeout=120)
        for row in range(number, len(texts), clients):
            body = json.dumps({"texts": [texts[row]], "task": tasks[row]})
            connection.request("POST", "/predict", body, {"content-type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            labels[row] = answer["predictions"][0]["label"]
        connection.close()

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return labels


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    asked = parser.parse_args()
    experiment = load_experiment(asked.experiment)
    names = [task.name for task in experiment.tasks]
    texts = texts_of(asked.texts)
    tasks = [names[row % len(names)] for row in range(len(texts))]
    command = [sys.executable, "-m", "plora_cl.cli.main", "serve", str(asked.experiment)]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = None
        while found is None:
            found = re.search(r"http://([^:]+):(\d+)", server.stdout.readline())
        address = found[1], int(found[2])
        ways: dict[str, Callable[[], list[str]]] = {
            "a loop of single predictions": lambda: one_by_one(experiment, texts, tasks),
            "one call": lambda: one_call(experiment, texts, tasks),
            f"serve, {asked.clients} clients": lambda: over_http(
                address, texts, tasks, asked.clients
            ),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        labels: set[tuple[str, ...]] = set()
        for way in ways.values():
            way()  # warm up
        for _ in range(asked.rounds):
            for name, way in ways.items():
                began = time.perf_counter()
                labels.add(tuple(way()))
                rates[name].append(len(texts) / (time.perf_counter() - began))
        server.terminate()
    if len(labels) != 1:
        raise SystemExit("the ways do not agree in every label")
    report(rates, asked)


def report(rates: dict[str, list[float]], asked: argparse.Namespace) -> None:
    """Print the median of each way and its ratio to the first one."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    slowest = next(iter(medians.values()))
    print(f"{asked.texts} texts, {asked.rounds} interleaved rounds, {platform.processor()}")
    for name, rate in medians.items():
        print(f"{name:<30} {rate:9.1f} examples/s {rate / slowest:7.2f} x")
    if asked.json is not None:
        figures: dict[str, Any] = {"machine": platform.platform(), "examples_per_second": rates}
        asked.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
