"""Token files that change under a run: its results must not bear the digests of other texts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from plora_cl.data.sources.base import SPLITS
from plora_cl.errors import DataError
from plora_cl.training.reporting import Reporter
from plora_cl.training.trainer import CLTrainer


class Rot(Reporter):
    """Changes tokens of one split of every task in place, at one step."""

    def __init__(self, cache: Path, split: str, step: int) -> None:
        self._cache, self._split, self._left = cache, split, step

    def step(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            for path in self._cache.glob("*/*.arrow"):
                self._change(path)

    def _change(self, path: Path) -> None:
        blocks = pa.ipc.open_file(pa.BufferReader(path.read_bytes()))
        split = SPLITS.index(self._split)
        every = map(blocks.get_batch, itertools.count())
        block = next(block for block in every if block["split"][0].as_py() == split)
        tokens = block["input_ids"].values.to_numpy().tobytes()
        with path.open("r+b") as file:
            file.seek(path.read_bytes().index(tokens) + 4)
            file.write((6).to_bytes(4, "little"))


@pytest.mark.parametrize(("split", "step"), [("train", 2), ("test", 29)])
def test_a_run_whose_tokens_changed_publishes_nothing(
    settings: dict[str, Any], tmp_path: Path, split: str, step: int
) -> None:
    cache = tmp_path / "cache"
    rot = Rot(cache, split, step)
    changes = {"experiment_dir": str(tmp_path), "cache_dir": str(cache)}
    trainer = CLTrainer(reporter=rot, **{**settings, **changes})
    with pytest.raises(DataError, match=r"\.arrow changed while a run read its tokens"):
        trainer.train_sequence()
    assert not (trainer.folder / "results" / "final_results.json").exists()
