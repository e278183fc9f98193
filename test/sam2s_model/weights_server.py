"""A real HTTP server on the loopback for the download tests, which can misbehave on demand."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass
class Behaviour:
    """How the server answers; tests change it between and during downloads."""

    body: bytes = b""
    etag: str | None = '"v1"'
    ranges: bool = True  # understand Range at all
    drop_after: list[int] = field(
        default_factory=list
    )  # body bytes sent before hanging up, in turn
    statuses: list[int] = field(default_factory=list)  # errors to answer first, in turn
    claimed_length: int | None = None  # a Content-Length that is not the truth
    chunked: bool = False  # no Content-Length at all
    content_type: str = "application/octet-stream"


class WeightsServer:
    """Serves one body under every path and keeps the requests' headers."""

    def __init__(self) -> None:
        self.behaviour = Behaviour()
        self.requests: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                outer.requests.append(dict(self.headers) | {"path": self.path})
                outer.answer(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> WeightsServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        b = self.behaviour
        handler.close_connection = True
        if b.statuses:
            handler.send_error(b.statuses.pop(0))
            return
        start, status = self._start(handler), 200
        if start:
            status = 206
        if start >= len(b.body) > 0:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(b.body)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = b.body[start:]
        handler.send_response(status)
        handler.send_header("Content-Type", b.content_type)
        if b.etag:
            handler.send_header("ETag", b.etag)
        if not b.chunked:
            length = len(body) if b.claimed_length is None else b.claimed_length
            handler.send_header("Content-Length", str(length))
        if status == 206:
            total = len(b.body) if b.claimed_length is None else start + b.claimed_length
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        handler.send_header("Connection", "close")
        handler.end_headers()
        if b.drop_after:
            body = body[: b.drop_after.pop(0)]
        handler.wfile.write(body)

    def _start(self, handler: BaseHTTPRequestHandler) -> int:
        wanted = handler.headers.get("Range")
        condition = handler.headers.get("If-Range")
        if not wanted or not self.behaviour.ranges:
            return 0
        if condition is not None and condition != self.behaviour.etag:
            return 0
        return int(wanted.removeprefix("bytes=").partition("-")[0])
