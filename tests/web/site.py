"""Serve the built page as a host of static files does, and count what goes over the wire."""

import gzip
import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import brotli  # gradio brings it

ISOLATED = json.loads((Path(__file__).parents[2] / "web" / "headers.json").read_text(encoding="utf-8"))
TEXT = (".html", ".js", ".mjs", ".css", ".json", ".webmanifest")
ENCODERS = {"gzip": gzip.compress, "br": brotli.compress, "identity": bytes}


@cache
def compressed(file: Path, encoding: str) -> bytes:
    return ENCODERS[encoding](file.read_bytes())


class Site(ThreadingHTTPServer):
    """A server of `dist`.

    Attributes:
        headers: of every answer.
        replaced: content by path instead of the file's, None for a missing file.
        sent: path and bytes of every answer's body, text under `encoding`.
    """

    daemon_threads = True

    def __init__(self, dist: Path, prefix: str = "", isolated: bool = True, encoding: str = "gzip"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.dist, self.prefix, self.encoding = dist, prefix, encoding
        self.headers = ISOLATED if isolated else {}
        self.replaced: dict[str, bytes | None] = {}
        self.sent: list[tuple[str, int]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{self.prefix}/"

    def read(self, path: str) -> tuple[bytes, dict[str, str]] | None:
        """Read the body of a path and the headers of its encoding, or None for a missing file."""
        file = self.dist / path
        if path in self.replaced:
            content = self.replaced[path]
            return None if content is None else (content, {})
        if not file.is_file():
            return None
        if file.suffix in TEXT:
            return compressed(file, self.encoding), {"Content-Encoding": self.encoding}
        return file.read_bytes(), {}


class Handler(SimpleHTTPRequestHandler):
    server: Site
    protocol_version = "HTTP/1.1"
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".mjs": "text/javascript",
        ".webmanifest": "application/manifest+json",
    }

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        start = f"{self.server.prefix}/"
        name = path.removeprefix(start) or "index.html"
        found = self.server.read(name) if path.startswith(start) else None
        body, headers = found or (b"not found", {})
        tag = f'"{zlib.crc32(body):x}"'
        status = 404 if not found else 304 if self.headers["If-None-Match"] == tag else 200
        body = b"" if status == 304 else body
        self.send_response(status)
        headers = headers | self.server.headers | {"Cache-Control": "no-cache", "ETag": tag}
        headers |= {"Content-Type": self.guess_type(name), "Content-Length": str(len(body))}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.server.sent.append((name, len(body)))
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(dist: Path, prefix: str = "", isolated: bool = True, encoding: str = "gzip") -> Iterator[Site]:
    """Serve a folder at a free port of this machine, below `prefix`."""
    site = Site(dist, prefix, isolated, encoding)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    try:
        yield site
    finally:
        site.shutdown()
        site.server_close()
