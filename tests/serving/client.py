"""A server in a process of its own, and clients of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Server:
    """A running ``plora-cl serve``."""

    process: subprocess.Popen[str]
    address: str

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.address}{path}", timeout=60) as answer:
            body = answer.read().decode()
        return json.loads(body) if answer.headers["content-type"].endswith("json") else body

    def ask(self, question: object) -> tuple[int, Any]:
        """Return status and body of a POST to /predict."""
        data = question if isinstance(question, bytes) else json.dumps(question).encode()
        request = urllib.request.Request(
            f"{self.address}/predict", data, {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Server]:
    """Serve an experiment on a free port."""
    command = [sys.executable, "-m", "plora_cl.cli.main", "serve", str(folder), "--port", "0"]
    with subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            listening = process.stdout.readline()
            found = re.search(r"http://\S+", listening)
            assert found is not None, listening
            yield Server(process, found[0])
        finally:
            process.terminate()
