"""Shared fixtures."""

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of reference data; the test skips where it is absent."""
    root = Path(os.environ.get("CRYODASK_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"reference data not found at {root} (set CRYODASK_SHARED_DATA)")
    return root


@dataclass
class Served:
    """A folder on a web server that knows byte ranges and, like an object store, lists no folders.

    `sent` holds name and bytes of each answer; the next `failures` requests are answered with 503.
    """

    address: str
    sent: list[tuple[str, int]] = field(default_factory=list)
    failures: int = 0

    def sent_bytes(self, name: str = "") -> int:
        return sum(size for path, size in self.sent if name in path)


@contextmanager
def _served(folder: Path) -> Iterator[Served]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = folder / self.path.lstrip("/")
            if served.failures:
                served.failures -= 1
                self.answer(503, b"")
            elif not path.is_file():
                self.answer(404, b"")
            elif asked := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
                content, first, last = path.read_bytes(), *asked.groups()
                part = (
                    slice(int(first), int(last) + 1)
                    if first and last
                    else slice(int(first or -int(last)), None)
                )
                self.answer(206, content[part])
            else:
                self.answer(200, path.read_bytes())

        def answer(self, status: int, content: bytes) -> None:
            served.sent.append((self.path, len(content)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Served(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Served]]:
    """Return a function that serves a folder on this machine until the test ends."""
    with ExitStack() as stack:
        yield lambda folder: stack.enter_context(_served(folder))
