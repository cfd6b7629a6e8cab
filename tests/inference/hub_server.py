"""A hub of models in this process: it takes one upload, or refuses everything."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """Keeps what was uploaded.

    Args:
        status: What every request is answered with; 200 takes uploads.
    """

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    @property
    def _hub(self) -> Hub:
        assert isinstance(self.server, Hub)
        return self.server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(self._answered(self.path, body))

    def do_GET(self) -> None:
        self._answer({})

    def _answered(self, path: str, body: bytes) -> object:
        hub = self._hub
        if path.endswith("/repos/create"):
            hub.made.append(json.loads(body))
            return {"url": f"{hub.address}/owner/name"}
        if "/preupload/" in path:
            files = [one["path"] for one in json.loads(body)["files"]]
            return {"files": [_regular(name) for name in files]}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    hub.files[value["path"]] = base64.b64decode(value["content"])
            return {"commitUrl": f"{hub.address}/owner/name/commit/1", "commitOid": "1"}
        return {"errors": [], "warnings": []}

    def _answer(self, document: object) -> None:
        data = json.dumps(document if self._hub.status == 200 else {"error": "no"}).encode()
        self.send_response(self._hub.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def _regular(name: str) -> dict[str, Any]:
    return {"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": None}


@contextmanager
def hub(status: int = 200) -> Iterator[Hub]:
    """Serve until the end of the ``with`` block."""
    with Hub(status) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
