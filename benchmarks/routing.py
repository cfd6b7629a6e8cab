"""How well frozen features tell tasks apart: no training, only the router.

    uv run python benchmarks/routing.py FOLDER [FOLDER ...] [--train 500] [--test 200] [--seed 42]

Each folder is a task with train, validation and test files. Prints the share of test texts that
are sent to their own task, and the confusion matrix.
"""

from __future__ import annotations

import argparse

import numpy as np

from plora_cl.cache_folder import default_cache_dir
from plora_cl.data.loading import load_tasks
from plora_cl.evaluation.routing.router import Router
from plora_cl.evaluation.under_way import UnderWay
from plora_cl.model.classifier import ContinualClassifier
from plora_cl.model.encoder import load_encoder, load_tokenizer
from plora_cl.units import run_through


def main() -> None:
    """Route the test texts of every task after the last one, and after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--model-name", default="packaged:minilm-l6")
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--train", type=int, default=500, help="texts a task")
    parser.add_argument("--test", type=int, default=200, help="texts a task")
    parser.add_argument("--abstain", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=42, help="chooses the training texts")
    chosen = parser.parse_args()
    tasks = load_tasks(
        chosen.folders,
        load_tokenizer(chosen.model_name),
        max_length=chosen.max_length,
        max_train_examples=chosen.train,
        max_eval_examples=chosen.test,
        seed=chosen.seed,
        cache_dir=default_cache_dir(),
        progress=lambda _: None,
    )
    model = ContinualClassifier(load_encoder(chosen.model_name))
    router = Router(
        model,
        examples=chosen.train,
        abstain=chosen.abstain,
        batch_size=64,
        seed=chosen.seed,
        under_way=UnderWay(),
    )
    for task in tasks:
        run_through(router.learn(tasks[: task.index + 1]))
        seen = tasks[: task.index + 1]
        routes = [run_through(router.route(known, len(seen))) for known in seen]
        right = [float((route == k).mean()) for k, (route, _) in enumerate(routes)]
        doubtful = [float(doubt.mean()) for _, doubt in routes]
        print(
            f"after {task.name}: routed rightly {np.mean(right):.4f}, "
            f"doubtful {np.mean(doubtful):.4f}, each {[round(share, 3) for share in right]}"
        )
        for known, (route, _) in zip(seen, routes, strict=True):
            print(f"  {known.name:>16} {np.bincount(route, minlength=len(seen)).tolist()}")


if __name__ == "__main__":
    main()
