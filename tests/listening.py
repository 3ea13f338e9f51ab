"""A small HTTP server in a thread that hears what is posted to it, for those that tell others."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def listening(heard: Callable[[str, bytes], None]) -> Iterator[str]:
    """Its address; `heard` is given the path and the body of every POST, unpacked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard(self.path, gzip.decompress(body) if self._is_packed else body)
            self.send_response(200)
            self.end_headers()

        @property
        def _is_packed(self) -> bool:
            return self.headers["content-encoding"] == "gzip"

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
