"""Running ``plora-cl checkpoints`` in this process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from plora_cl.cli.main import main

FIRST, LAST = (f"checkpoint_task0_epoch0_batch{batch}.pt" for batch in (9, 19))
DEMO = "experiments/demo"


class Calls:
    """Runs commands and keeps what they wrote."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out, self.err = "", ""

    def __call__(self, *argv: str) -> int:
        """Run a command; return its exit code."""
        try:
            code = main(["checkpoints", *argv])
        except SystemExit as end:
            code = int(str(end.code))
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *argv: str, code: int = 0) -> dict[str, Any]:
        """Run a command with ``--json`` and return the document."""
        assert self(*argv, "--json") == code, self.err
        document: dict[str, Any] = json.loads(self.out)
        return document
