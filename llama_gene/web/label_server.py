"""Label probabilities over HTTP: JSON in, JSON out, by the standard library's threading server; chat requests are passed on.

    GET  /health        is it up, which model
    GET  /tasks         what can be asked: kinds, labels, instruction, limits, and the tasks that cannot be asked, with the reason
    POST /labels        {"task": NAME, "sequences": [...], "names": [...]} -> a label and all probabilities for each sequence
    GET  /v1/models     the model's name for chat
    any  /v1/...        passed on, as it comes, to the chat server that runs beside (`recipes.serve`), so that one address serves both;
                        chat requests are checked first: `transformers serve` generates beyond the context without a word

A thread answers each connection; one lock lets one request at a time to the model, so an answer does not depend on what else is asked. A
request is answered whole or refused whole: 400 with every faulty row and why (letters, lengths, tokens), 404 for a task or path that is not
there, 411 and 413 by the header, before the body is read, 415 for another type than JSON (which also keeps web pages of other sites from
sending one unseen), 403 where a server bound to this machine alone is called by another name (DNS rebinding), 503 when too many wait.
Nothing is ever shortened, nothing of a request is executed, written or logged but its method, path and status.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from llama_gene.data.askable import AskableTask, AskableTasks, AskedRow, check_row
from llama_gene.errors import InputError, LlamaGeneError, did_you_mean
from llama_gene.runtime import get_logger, package_version

KEYS = ("task", "sequences", "names")
MAX_NAME = 200
"""Characters of a row's name, which comes back in the answer."""
READ_TIMEOUT = 30.0
"""Seconds that a client may be silent in the middle of its request."""
PASS_TIMEOUT = 3600.0
"""Seconds that the chat server may be silent: a long answer of a large model on a CPU."""
DRAINED = 64 << 20
"""Bytes of a refused body that are read and thrown away, so that the client reads the refusal instead of a broken connection."""
Ask = Callable[[AskableTask, list[AskedRow]], list[dict[str, Any]]]


@dataclass(frozen=True)
class ChatServer:
    """The server that `/v1/...` is passed on to."""

    url: str
    model: str
    """The model's name there."""
    check: Callable[[Mapping[str, Any]], None]
    """Raises InputError for a chat request that must not be passed on."""


@dataclass(frozen=True)
class Limits:
    """How much one request, and how many at a time."""

    body_bytes: int = 8 << 20
    rows: int = 1000
    waiting: int = 32


class Refusal(LlamaGeneError):
    """A request that is answered with a status and a reason; `rows` names the faulty ones."""

    def __init__(self, status: HTTPStatus, found: str, expected: str = "", action: str = "", rows: Mapping[int, str] | None = None) -> None:
        super().__init__(found, expected, action)
        self.status = status
        self.rows = dict(rows or {})

    def as_dict(self) -> dict[str, Any]:
        """Return the body of the answer."""
        rows = [{"row": number, "message": message} for number, message in sorted(self.rows.items())]
        return {"error": {"message": str(self), "type": self.status.phrase, "rows": rows}}


class LabelService:
    """What is behind the address, without HTTP: tasks, limits, and a model that one request at a time may use.

    `ask` returns an answer for each checked question; InputError from it is the client's fault (400).
    """

    def __init__(self, ask: Ask, tasks: AskableTasks, model_name: str, limits: Limits | None = None) -> None:
        self.ask = ask
        self.tasks = tasks
        self.model_name = model_name
        self.limits = limits or Limits()
        self.is_stopping = False
        self._model_lock = threading.Lock()
        self._places = threading.BoundedSemaphore(self.limits.waiting)

    def health(self) -> dict[str, Any]:
        """Return what `/health` says."""
        return {"status": "ok", "model": self.model_name, "version": package_version(), "tasks": len(self.tasks.by_name)}

    def describe(self) -> dict[str, Any]:
        """Return what `/tasks` says."""
        return {
            "model": self.model_name,
            "tasks": [task.describe() for task in self.tasks.by_name.values()],
            "not_askable": dict(self.tasks.refused),
            "limits": {"body_bytes": self.limits.body_bytes, "sequences": self.limits.rows, "requests_waiting": self.limits.waiting},
        }

    def answer(self, body: bytes) -> dict[str, Any]:
        """Return the answer to the body of a request to `/labels`. Raises Refusal."""
        task, rows = self._read(body)
        if not self._places.acquire(blocking=False):
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"{self.limits.waiting} requests are waiting already", "", "Try again later")
        try:
            with self._model_lock:
                if self.is_stopping:
                    raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the server is stopping")
                answers = self.ask(task, rows)
        except InputError as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, error.found, error.expected, error.action, getattr(error, "rows", None)) from error
        finally:
            self._places.release()
        return {"model": self.model_name, "task": task.name, "labels": list(task.labels), "answers": answers}

    def _read(self, body: bytes) -> tuple[AskableTask, list[AskedRow]]:
        """Return the task and the checked questions of a request."""
        request = _json_object(body)
        for key in request:
            if key not in KEYS:
                raise _bad(f"key '{str(key)[:40]}' is not known", f"one of {', '.join(KEYS)}", did_you_mean(str(key)[:40], KEYS))
        name, sequences, names = request.get("task"), request.get("sequences"), request.get("names")
        if not isinstance(name, str):
            raise _bad("the request names no task", '{"task": NAME, "sequences": [...]}', "GET /tasks lists them")
        try:
            task = self.tasks.get(name[:MAX_NAME])
        except InputError as error:
            raise Refusal(HTTPStatus.NOT_FOUND, error.found, error.expected, error.action) from error
        if not isinstance(sequences, list) or not sequences:
            raise _bad("'sequences' is no list with something in it", 'a list: ["ACGT", ...], of a pair [["ACGT", "MKV"], ...]')
        if len(sequences) > self.limits.rows:
            found = f"{len(sequences):,} sequences"
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, found, f"at most {self.limits.rows:,} a request", "Send them in parts")
        if names is not None and not (isinstance(names, list) and len(names) == len(sequences) and all(map(_is_name, names))):
            raise _bad("'names' does not fit", f"a list of {len(sequences)} texts of at most {MAX_NAME} characters, one for each sequence")
        labels = names or [f"row {number}" for number in range(len(sequences))]
        return task, _checked(task, list(zip(labels, sequences, strict=True)))


def _checked(task: AskableTask, given: list[tuple[str, Any]]) -> list[AskedRow]:
    """Return the questions. Raises Refusal that names every faulty row."""
    rows: list[AskedRow] = []
    faults: dict[int, str] = {}
    for number, (name, value) in enumerate(given):
        parts = [value] if isinstance(value, str) else value
        try:
            if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
                raise InputError(f"{name} is {type(value).__name__}", "a text, for a pair a list of two texts")
            rows.append(check_row(task, parts, name))
        except InputError as error:
            faults[number] = str(error)
    if faults:
        first = faults[min(faults)].rstrip(".")
        more = f" (and {len(faults) - 1} more faulty rows)" if len(faults) > 1 else ""
        raise Refusal(HTTPStatus.BAD_REQUEST, first + more, rows=faults)
    return rows


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_NAME


def _json_object(body: bytes, example: str = '{"task": NAME, "sequences": [...]}') -> dict[str, Any]:
    """Return the JSON object of a request. Raises Refusal."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        place = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise _bad(f"the body is not JSON ({type(error).__name__}{place})", example) from error
    if not isinstance(value, dict):
        raise _bad(f"the body is {type(value).__name__}", f"an object: {example}")
    return value


def _bad(found: str, expected: str = "", action: str = "") -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, found, expected, action)


# --- HTTP ------------------------------------------------------------------------------------------------------------------------


class LabelServer(ThreadingHTTPServer):
    """The address: bound when it is made, so that a taken port is known before a model is loaded; `service` comes when it is ready.

    `chat` is None where no chat server runs beside. `server_close` waits for answers under way.
    Raises InputError for an address that cannot be had.
    """

    request_queue_size = 64
    service: LabelService
    chat: ChatServer | None = None

    def __init__(self, host: str, port: int) -> None:
        self._answering: set[threading.Thread] = set()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(
                f"{host}, port {port} cannot be had: {reason}", "a free port of this machine", "Set --port or --host"
            ) from error
        self.is_local = is_loopback(host)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own: a daemon, so that a second signal need not wait for it, but `server_close` does."""
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self._answering = {other for other in self._answering if other.is_alive()} | {thread}
        thread.start()

    def server_close(self) -> None:
        """Close the address and wait for the answers under way."""
        super().server_close()
        for thread in self._answering:
            thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what a handler did not expect; a client that went away is no news."""
        import sys

        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            get_logger().exception("serve: a request failed")


def is_loopback(host: str) -> bool:
    """Return whether an address reaches this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Handler(BaseHTTPRequestHandler):
    """One connection, one request: it is closed after its answer, so that stopping never waits for an idle client."""

    protocol_version = "HTTP/1.1"
    timeout = READ_TIMEOUT
    server: LabelServer

    def version_string(self) -> str:
        """Return what the header Server says: not which Python."""
        return "llama-gene"

    def do_GET(self) -> None:
        """Answer or refuse."""
        self._handle()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = do_GET

    def _handle(self) -> None:
        self.close_connection = True
        path = urlsplit(self.path).path
        try:
            self._check_host()
            if path.startswith("/v1/"):
                self._pass_on()
            elif path == "/labels":
                self._check_method("POST")
                self._check_type()
                self._send(HTTPStatus.OK, self.server.service.answer(self._body()))
            elif path in ("/health", "/tasks"):
                self._check_method("GET")
                service = self.server.service
                self._send(HTTPStatus.OK, service.health() if path == "/health" else service.describe())
            else:
                raise Refusal(HTTPStatus.NOT_FOUND, f"there is no '{path[:80]}'", "/health, /tasks, /labels or /v1/...")
        except Refusal as refusal:
            self._drain()
            self._send(refusal.status, refusal.as_dict())
        except ConnectionError:
            raise
        except Exception as error:  # the server lives on: an out-of-memory error of one request is no reason to refuse the next
            logger = get_logger()
            logger.exception("serve: %s %s failed", self.command, path)
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": {"message": f"{type(error).__name__}; see the log", "rows": []}})

    def handle_expect_100(self) -> bool:
        """Refuse a body by its header before it is sent, or ask for it."""
        try:
            self._length()
        except Refusal as refusal:
            self.close_connection = True
            self._send(refusal.status, refusal.as_dict())
            return False
        return super().handle_expect_100()

    # checks

    def _check_host(self) -> None:
        """Refuse a name that is not this machine's: a web page whose name was pointed here would be of the same origin as we."""
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        if self.server.is_local and not is_loopback(name):
            raise Refusal(HTTPStatus.FORBIDDEN, f"this server is not called '{name[:80]}'", "localhost or a loopback address")

    def _check_method(self, method: str) -> None:
        if self.command != method:
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{self.command} {urlsplit(self.path).path}", method)

    def _check_type(self) -> None:
        if self.headers.get_content_type() != "application/json":
            found = f"a body of type {self.headers.get_content_type()}"
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, found, "application/json", "Send the header Content-Type: application/json")

    def _length(self) -> int:
        """Return the length of the body by its header. Raises Refusal."""
        text = self.headers.get("Content-Length")
        if text is None:
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "a body without Content-Length", "its length in bytes")
        if not (text.isascii() and text.isdigit()) or len(text) > 18:
            raise _bad(f"Content-Length {text[:40]!r}", "a number of bytes")
        if int(text) > self.server.service.limits.body_bytes:
            found, limit = f"a body of {int(text):,} bytes", f"at most {self.server.service.limits.body_bytes:,}"
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, found, limit, "Send the sequences in parts")
        return int(text)

    # bodies

    def _body(self) -> bytes:
        length = self._length()
        try:
            body = self.rfile.read(length)
        except TimeoutError:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, f"no more of the body came in {READ_TIMEOUT:.0f} s", f"{length:,} bytes") from None
        self._is_read = True
        if len(body) < length:
            raise _bad(f"a body of {len(body):,} bytes", f"{length:,}, as its header says")
        return body

    _is_read = False

    def _drain(self) -> None:
        """Read what a refused client is still sending, up to a limit."""
        text = self.headers.get("Content-Length", "0")
        left = min(int(text), DRAINED) if text.isascii() and text.isdigit() and len(text) < 19 and not self._is_read else 0
        try:
            while left > 0 and (block := self.rfile.read(min(left, 1 << 20))):
                left -= len(block)
        except OSError:
            return

    def _send(self, status: HTTPStatus, value: Mapping[str, Any]) -> None:
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _pass_on(self) -> None:
        """Send a request to the chat server as it came, and its answer back as it comes (a stream stays one)."""
        chat = self.server.chat
        if chat is None:
            raise Refusal(
                HTTPStatus.NOT_FOUND, "no chat server runs beside this one", "/labels", "Start with --engine transformers or vllm"
            )
        path = urlsplit(self.path).path
        if path == "/v1/models":  # transformers lists what the hub's cache holds, which our folder is not
            self._check_method("GET")
            self._send(HTTPStatus.OK, {"object": "list", "data": [{"id": chat.model, "object": "model", "owned_by": "llama-gene"}]})
            return
        body = self._body() if self.command in ("POST", "PUT", "PATCH") else None
        if path == "/v1/chat/completions" and body is not None:
            try:
                chat.check(_json_object(body, '{"model": NAME, "messages": [...]}'))
            except InputError as error:
                raise _bad(error.found, error.expected, error.action) from error
        target = urlsplit(chat.url)
        connection = http.client.HTTPConnection(target.hostname or "127.0.0.1", target.port, timeout=PASS_TIMEOUT)
        kept = {name: self.headers[name] for name in ("Content-Type", "Accept", "Authorization") if name in self.headers}
        try:
            try:
                connection.request(self.command, self.path, body, kept)
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                found = f"the chat server does not answer ({type(error).__name__})"
                raise Refusal(HTTPStatus.BAD_GATEWAY, found, "", "/labels still works") from error
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.getheader("Content-Type", "application/json"))
            self.send_header("Connection", "close")
            self.end_headers()
            while block := answer.read1(1 << 16):
                self.wfile.write(block)
                self.wfile.flush()
        finally:
            connection.close()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log method, path and status."""
        self.log_message("%s %s: %s", self.command, getattr(self, "path", "a request that is no HTTP"), int(code))

    def log_message(self, format: str, *args: Any) -> None:
        """Log a line; control characters of a path are spelled out, and a long one is cut."""
        get_logger().info("serve: %s", ascii(format % args)[1:-1][:200])
