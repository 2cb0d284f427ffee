"""What stands before the page's server: it lets through what the page needs, and nothing else.

gradio serves more than one page needs (a proxy, a code editor, deep links, monitoring), and takes an upload of any type into its cache
before it looks at it. So every request is checked here first:

1. a path that the page does not ask for: 404; a file outside the page's own temporary folder: 403;
2. bound to loopback, a request for another host's name: 403 (a web page elsewhere that lets its own name point to 127.0.0.1);
3. a request that another site's page sent (its Origin is not this host): 403;
4. an upload above the limit: 413, told by its length before a byte is read, and counted where it has none; another type, two at once: 415.

And every answer carries a content security policy, with which the browser refuses to load or send anything outside this server: no fonts,
no analytics, no frames.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llama_gene.errors import InputError
from llama_gene.web.questions import MAX_UPLOAD_BYTES, SUFFIXES, is_accepted

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_BODY_BYTES = MAX_UPLOAD_BYTES + 2**20  # an upload with what a form puts around it, and the pasted text of any other request
_API = "/gradio_api"
_FILE = f"{_API}/file="
_UPLOAD = f"{_API}/upload"
_PAGES = ("/", "/config", "/config/", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt")
_FOLDERS = ("/assets/", "/static/", "/svelte/", f"{_API}/heartbeat/", _FILE)
_READ = tuple(f"{_API}/{name}" for name in ("startup-events", "queue/data", "upload_progress", "theme.css", "app_id", "app_id/"))
_WRITTEN = tuple(f"{_API}/{name}" for name in ("queue/join", "upload", "cancel", "reset", "reset/"))
_HEADERS = [
    # gradio's own page holds scripts and styles inside itself, and builds its HTML parts with Function(): "unsafe" here means that alone
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
        b"object-src 'none'; frame-ancestors 'none'; base-uri 'self'; form-action 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class PageGuard:
    """An ASGI application before another one."""

    def __init__(self, app: Any, folder: Path, hosts: tuple[str, ...]) -> None:
        """`folder` holds the uploads and downloads; `hosts` are the names that a request may be for, empty: any."""
        self.app = app
        self.folder = folder.resolve()
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page speaks no WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None and scope["method"] == "POST":
            body = await _read_body(receive, MAX_BODY_BYTES)
            if body is None:
                refusal = _too_large()
            else:
                refusal = await _refused_upload(scope, body) if scope["path"] == _UPLOAD else None
                receive = _replay(body, receive)
        if refusal is not None:
            await _answer(send_guarded, *refusal)
            return
        await self.app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and reason where a request is refused by its path and its headers."""
        path, method = scope["path"], scope["method"]
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self.hosts and urlsplit(f"//{host}").hostname not in self.hosts:
            return 403, "This page is for this machine alone; open it by the address that was printed when it was started."
        if "origin" in headers and urlsplit(headers["origin"]).netloc != host:  # "null", a sandboxed page's, has no netloc
            return 403, "The request comes from the page of another site."
        known = path in _WRITTEN if method == "POST" else path in (*_PAGES, *_READ) or path.startswith(_FOLDERS)
        if method not in ("GET", "HEAD", "POST") or not known:
            return 404, "There is nothing here."
        if path.startswith(_FILE) and not self._is_ours(path.removeprefix(_FILE)):
            return 403, "This file is none of the page's."
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > MAX_BODY_BYTES:
            return _too_large()
        return None

    def _is_ours(self, name: str) -> bool:
        """Tell whether a path, links resolved, lies in the page's folder."""
        try:
            return Path("/", name).resolve().is_relative_to(self.folder)
        except (OSError, ValueError):  # too long, or with a zero byte
            return False


def allowed_hosts(host: str) -> tuple[str, ...]:
    """Return the names that a request may be for: those of this machine where the server is bound to it, else any.

    >>> allowed_hosts("localhost"), allowed_hosts("0.0.0.0")
    (('127.0.0.1', 'localhost', '::1'), ())
    """
    return LOOPBACK if host in LOOPBACK else ()


async def _read_body(receive: Receive, limit: int) -> bytes | None:
    """Return a request's body, None as soon as it is larger than the limit."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > limit:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that hands out a body that was read already, and then what comes after it (the end of the connection)."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return waiting.pop() if waiting else await receive()

    return read


async def _refused_upload(scope: Scope, body: bytes) -> tuple[int, str] | None:
    """Return status and reason where an upload is no single FASTA file of a size that is taken."""
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

    async def nothing() -> Message:
        raise InputError("the form of an upload is cut short", "a whole form")

    try:
        async with Request(scope, _replay(body, nothing)).form(max_files=1, max_fields=0) as form:  # the parser that gradio extends
            files = [(getattr(item, "filename", None) or "", getattr(item, "size", 0)) for _, item in form.multi_items()]
    except (HTTPException, InputError):
        return 415, "One file at a time."
    if len(files) != 1 or not is_accepted(files[0][0]):
        return 415, f"A FASTA file is expected: its name ends in {', '.join(SUFFIXES)}."
    return _too_large() if files[0][1] > MAX_UPLOAD_BYTES else None


def _too_large() -> tuple[int, str]:
    return 413, f"At most {MAX_UPLOAD_BYTES // 2**20} MB at a time: split the file, or use the command line, which has no such limit."


async def _answer(send: Send, status: int, reason: str) -> None:
    """Send a refusal as plain text."""
    body = reason.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
