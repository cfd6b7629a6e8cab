from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # importing every library that is compared takes 10 s

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "checkpointing.py"
COLUMNS = {
    "name",
    "stall_ms_p50",
    "stall_ms_p99",
    "durable_ms_p50",
    "bytes_written",
    "bytes_kept_65",
    "load_ms",
}
WAYS = (
    "plora_cl, asynchronous",
    "plora_cl, in place",
    "naive",
    "accelerate",
    "torch.distributed.checkpoint save",
    "torch.distributed.checkpoint async_save",
    "transformers Trainer",
    "limit",
)


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )


def test_the_benchmark_compares_ways_to_save(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    place = ("--folder", str(tmp_path), "--json", str(target))
    outcome = benchmark("--rounds", "1", "--only", "rows", *place)
    assert outcome.returncode == 0, outcome.stderr
    result = json.loads(target.read_text(encoding="utf-8"))
    assert {"rows", "overhead_every_step_percent", "machine"} <= result.keys()
    assert all(row.keys() >= COLUMNS for row in result["rows"])
    names = [row["name"] for row in result["rows"]]
    assert all(any(name.startswith(way) for name in names) for way in WAYS)
    ours, naive = result["rows"][0], next(r for r in result["rows"] if r["name"].startswith("nai"))
    assert ours["bytes_written"] <= result["bytes_allowed"] < naive["bytes_written"]
    assert "stall p50" in outcome.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("--only", "rows,speed"), "speed"), (("--rounds", "0"), "at least 1")],
)
def test_a_mistaken_request_is_refused(arguments: tuple[str, str], told: str) -> None:
    outcome = benchmark(*arguments)
    assert outcome.returncode == 2
    assert told in outcome.stderr
