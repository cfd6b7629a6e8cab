from __future__ import annotations

import json

import pytest
import torch

from plora_cl.checkpoint.snapshot.compatibility import value_changes
from plora_cl.compute.environment import IMPACTS, deciding, environment, instruction_sets
from plora_cl.impact import Impact


def test_the_fingerprint_is_plain_and_the_same_twice() -> None:
    found = environment(device="cpu")
    assert json.loads(json.dumps(found)) == found
    assert found["torch"].startswith(torch.__version__.split("+")[0])
    assert found["threads"] == torch.get_num_threads()
    assert found["device"] == "cpu"
    assert environment(device="cpu") == found


def test_every_fact_decides_the_result_but_for_those_that_name_the_machine() -> None:
    found = environment(device="cpu")
    assert dict.fromkeys(("host", "device_index", "device_count"), Impact.HARMLESS) == IMPACTS
    assert deciding(found).keys() == found.keys() - IMPACTS.keys()
    libraries = {"torch", "transformers", "peft", "accelerate", "numpy", "tokenizers", "python"}
    assert deciding(found).keys() > {*libraries, "threads", "isa", "cpu_capability", "device"}


def test_a_change_of_the_thread_count_is_seen() -> None:
    before = torch.get_num_threads()
    saved = environment(device="cpu")
    try:
        torch.set_num_threads(before + 1)
        found = value_changes(saved, environment(device="cpu"), IMPACTS)
    finally:
        torch.set_num_threads(before)
    expected = f"trajectory-changing: threads: {before} -> {before + 1}"
    assert [str(change) for change in found] == [expected]


def test_a_variable_that_chooses_kernels_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = environment(device="cpu")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    (found,) = value_changes(saved, environment(device="cpu"), IMPACTS)
    assert (found.key, found.now) == ("variables", "{'ONEDNN_MAX_CPU_ISA': 'AVX2'}")


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (
            "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 sse4_1 fma amx_tile\n"
            "\nprocessor\t: 1\nvendor_id\t: GenuineIntel\nflags\t\t: fpu\n",
            "GenuineIntel amx_tile avx2 fma sse4_1",
        ),
        (
            "processor\t: 0\nFeatures\t: fp asimd sve i8mm\nCPU implementer\t: 0x41\n",
            "0x41 asimd i8mm sve",
        ),
        ("", "unknown"),
    ],
)
def test_a_processor_is_known_by_its_maker_and_vector_instructions(
    cpuinfo: str, expected: str
) -> None:
    assert instruction_sets(cpuinfo) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_named() -> None:
    found = environment(device="cuda:0")
    assert found["device"] == torch.cuda.get_device_name(0)
    assert environment(device="cuda") == found
    assert found.keys() == {*environment(device="cpu"), "attention"}
