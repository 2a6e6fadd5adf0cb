"""A real HTTP server on loopback that does what it is told, also what no server should."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

BLOCK = 1 << 14


@dataclass(frozen=True)
class Reply:
    """How one request is answered: honestly, but for what is set here."""

    status: int | None = None
    """Send this and no file."""
    location: str | None = None
    """Redirect there."""
    body: bytes | None = None
    """Send this instead of the file."""
    etag: str | None = '"one"'
    modified: str | None = None
    ranges: bool = True
    """Honour `Range`."""
    if_range: bool = True
    """Honour `If-Range`; else a range is sent of whatever the file is now."""
    content_range: str | None = None
    """Say this of a range."""
    extra_length: int = 0
    """Say that the body is so much longer."""
    chunked: bool = False
    """Do not say how long the body is."""
    cut: int | None = None
    """Close the connection after so many bytes of the body."""
    stall: float = 0.0
    """Seconds of silence before that, or before the status line if `cut` is None."""
    pause: float = 0.0
    """Seconds between two blocks."""


@dataclass
class Request:
    """What was asked for, and how many bytes of a body were sent."""

    path: str
    range: str | None
    if_range: str | None
    sent: int = 0


class Server(ThreadingHTTPServer):
    """Serves `files` by their path; each request takes the next of `replies`, and `Reply()` once there is none."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.replies: list[Reply] = []
        self.requests: list[Request] = []
        self.stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def sent(self) -> int:
        """Bytes of bodies that went over the wire."""
        return sum(request.sent for request in self.requests)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error here."""


class Handler(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        server = cast(Server, self.server)
        request = Request(self.path, self.headers["Range"], self.headers["If-Range"])
        server.requests.append(request)
        reply = server.replies.pop(0) if server.replies else Reply()
        if reply.cut is None:
            server.stopped.wait(reply.stall)
        self.answer(server, request, reply)

    def answer(self, server: Server, request: Request, reply: Reply) -> None:
        content = server.files.get(self.path) if reply.body is None else reply.body
        if reply.location is not None:
            self.start(302, {"Location": reply.location, "Content-Length": "0"})
        elif reply.status is not None or content is None:
            self.send_error(reply.status or 404)
        else:
            self.send_file(server, request, reply, content)

    def send_file(self, server: Server, request: Request, reply: Reply, content: bytes) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", request.range or "")
        same = not reply.if_range or request.if_range in (reply.etag, reply.modified)
        start = int(wanted[1]) if wanted and reply.ranges and same else 0
        if start >= len(content):
            return self.send_error(416)
        headers = {"ETag": reply.etag, "Last-Modified": reply.modified}
        if reply.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(len(content) - start + reply.extra_length)
        if start:
            honest = f"bytes {start}-{len(content) - 1}/{len(content)}"
            headers["Content-Range"] = honest if reply.content_range is None else reply.content_range
        self.start(206 if start else 200, headers)
        self.send_body(server, request, reply, content[start:])

    def start(self, status: int, headers: dict[str, str | None]) -> None:
        self.protocol_version = "HTTP/1.1"
        self.close_connection = True
        self.send_response(status)
        for key, value in headers.items():
            if value is not None:
                self.send_header(key, value)
        self.end_headers()

    def send_body(self, server: Server, request: Request, reply: Reply, body: bytes) -> None:
        end = len(body) if reply.cut is None else reply.cut
        for start in range(0, end, BLOCK):
            block = body[start : min(start + BLOCK, end)]
            framed = b"%x\r\n%b\r\n" % (len(block), block) if reply.chunked else block
            request.sent += len(block)  # before it goes: whoever has it all may look at once
            self.wfile.write(framed)
            server.stopped.wait(reply.pause)
        if reply.cut is not None:
            server.stopped.wait(reply.stall)
            self.connection.shutdown(socket.SHUT_RDWR)
        elif reply.chunked:
            self.wfile.write(b"0\r\n\r\n")


@contextmanager
def serving() -> Iterator[Server]:
    """A server in a thread of its own, until the body ends."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            server.shutdown()
            thread.join()
