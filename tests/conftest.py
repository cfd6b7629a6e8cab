"""The environment of every test and of the processes that tests start.

Models in tests are tiny: a second thread only waits for the first, and for other processes. Each
process imports torch: its byte code is kept, or every process compiles it anew for ten seconds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from warm import Interpreter

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.fixture(scope="session")
def warm() -> Iterator[Interpreter]:
    """Return an interpreter that starts processes at once, see `warm`."""
    interpreter = Interpreter()
    yield interpreter
    interpreter.close()
