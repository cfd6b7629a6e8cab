from __future__ import annotations

import json

import pytest
import torch

from plora_cl.checkpoint.environment import difference, environment


def test_the_fingerprint_is_plain_and_the_same_twice() -> None:
    found = environment(device="cpu", precision="fp32")
    assert json.loads(json.dumps(found)) == found
    assert found["torch"].startswith(torch.__version__.split("+")[0])
    assert found["threads"] == torch.get_num_threads()
    assert found["device"] == "cpu"
    assert difference(found, environment(device="cpu", precision="fp32")) == []


def test_what_changed_is_listed_by_name() -> None:
    saved = environment(device="cpu", precision="fp32")
    current = {**environment(device="cpu", precision="bf16"), "threads": 99}
    assert difference(saved, current) == [
        "precision: saved with fp32, now bf16",
        f"threads: saved with {saved['threads']}, now 99",
    ]


def test_a_change_of_the_thread_count_is_seen() -> None:
    before = torch.get_num_threads()
    saved = environment(device="cpu", precision="fp32")
    try:
        torch.set_num_threads(before + 1)
        changed = difference(saved, environment(device="cpu", precision="fp32"))
    finally:
        torch.set_num_threads(before)
    assert changed == [f"threads: saved with {before}, now {before + 1}"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_named() -> None:
    found = environment(device="cuda:0", precision="fp32")
    assert found["device"] == torch.cuda.get_device_name(0)
