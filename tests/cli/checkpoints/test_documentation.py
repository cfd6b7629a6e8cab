"""The commands of the documentation of the tools, run as written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from cli.checkpoints.calls import Calls
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.cli.checkpoints.main import COMMANDS

DOCS = Path(__file__).parents[3] / "docs"


def commands(document: str) -> list[list[str]]:
    text = (DOCS / document).read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[2:] for line in lines if "plora-cl checkpoints" in line]


@pytest.mark.parametrize("document", ["checkpoint-tools.md", "checkpoint-tools.pt-BR.md"])
def test_every_documented_command_does_what_it_says(
    document: str, experiment: CheckpointStore, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("experiments/demo").rename("experiments/a")
    folder = Path("experiments/a/checkpoints")
    (folder / "checkpoint_task0_epoch0_batch9.pt").rename(
        folder / "checkpoint_task0_epoch0_batch74.pt"
    )
    (folder / "checkpoint_task0_epoch0_batch19.pt").rename(
        folder / "checkpoint_task0_epoch1_batch74.pt"
    )
    call = Calls(capsys)
    known = commands(document)
    assert {argv[0] for argv in known} == set(COMMANDS)
    for argv in known:
        if argv[0] == "import":
            argv[-1] = "experiments/c"  # the example is of another machine
        assert call(*argv) == (1 if argv[0] == "diff" else 0), (argv, call.err)
