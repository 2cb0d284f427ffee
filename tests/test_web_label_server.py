"""Label probabilities over HTTP: the numbers of `score_labels`, one request at a time, and a clear refusal for what cannot be answered."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from llama_gene.data.askable import AskableTask, AskableTasks, AskedRow
from llama_gene.data.prompts import encode_answer, encode_prompt
from llama_gene.errors import InputError
from llama_gene.inference.ask import ask
from llama_gene.inference.scoring import score_labels
from llama_gene.web.label_server import ChatServer, LabelServer, LabelService, Limits, is_loopback
from tests.tiny_models import tiny_llama, tiny_tokenizer

DNA = AskableTask("core", "core promoter", "classification", ("dna",), ("Non-promoter", "promoter"), "Is it?", "{0}")
EC = AskableTask("ec", "enzyme", "classification", ("protein",), ("no", "yes"), "Is it?", "{0}")
PAIR = AskableTask("pair", "pair", "pair", ("dna", "protein"), ("no", "yes"), "Match?", "{0}\n####\n{1}")
TASKS = AskableTasks({task.name: task for task in (DNA, EC, PAIR)}, {"ss": "it is asked of single residues"})
Answers = list[dict[str, Any]]


def echo(task: AskableTask, rows: list[AskedRow]) -> Answers:
    """Stand in for a model."""
    return [{"name": row.name, "sequences": list(row.sequences)} for row in rows]


@contextmanager
def serving(answer: Callable[[AskableTask, list[AskedRow]], Answers] = echo, limits: Limits | None = None) -> Iterator[LabelServer]:
    """Run a server in a thread."""
    with LabelServer("127.0.0.1", 0) as server:
        server.service = LabelService(answer, TASKS, "tiny", limits)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def send(
    server: LabelServer, body: object = None, method: str = "POST", path: str = "/labels", headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Send a request; return status and JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    try:
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()


def message_of(answer: tuple[int, Any], status: int) -> str:
    """Return a refusal's text."""
    assert answer[0] == status, answer
    return str(answer[1]["error"]["message"])


def test_probabilities_equal_the_softmax_of_score_labels_also_when_asked_by_many_at_once() -> None:
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    rng = np.random.default_rng(0)
    batches = [["".join(rng.choice(list("ACGT"), size=rng.integers(4, 60))) for _ in range(3)] for _ in range(6)]
    with serving(lambda task, rows: [found.as_dict() for found in ask(model, tokenizer, task, rows)]) as server:
        requests = [{"task": "core", "sequences": batch} for batch in batches]
        alone = [send(server, request) for request in requests]
        with ThreadPoolExecutor(6) as pool:
            together = list(pool.map(lambda request: send(server, request), requests))
    assert together == alone  # to the last digit: one request at a time has the model
    labels = [encode_answer(tokenizer, label) for label in DNA.labels]
    for batch, (status, answer) in zip(batches, alone, strict=True):
        assert status == 200 and answer["model"] == "tiny" and answer["labels"] == list(DNA.labels)
        prompts = [encode_prompt(tokenizer, f"Is it?\n\n### Input:\n{sequence}") for sequence in batch]
        wanted = softmax(score_labels(model, prompts, labels, vocab_size=len(tokenizer)), axis=1)
        found = [[row["probabilities"][label] for label in DNA.labels] for row in answer["answers"]]
        assert np.abs(np.array(found) - wanted).max() < 1e-6
        assert [row["label"] for row in answer["answers"]] == [DNA.labels[k] for k in wanted.argmax(1)]


def test_tasks_health_and_a_batch_of_pairs() -> None:
    with serving() as server:
        assert send(server, method="GET", path="/health")[1] | {"version": ""} == {
            "status": "ok", "model": "tiny", "version": "", "tasks": 3,
        }  # fmt: skip
        told = send(server, method="GET", path="/tasks?x=1")[1]
        assert [task["name"] for task in told["tasks"]] == ["core", "ec", "pair"]
        assert told["tasks"][0]["labels"] == ["Non-promoter", "promoter"] and told["not_askable"] == {
            "ss": "it is asked of single residues"
        }
        assert told["limits"]["sequences"] == 1000
        answer = send(server, {"task": "pair", "sequences": [["acgt", "MKV"], ["AC", "M K"]], "names": ["a", "b"]})
        assert answer[1]["answers"] == [{"name": "a", "sequences": ["ACGT", "MKV"]}, {"name": "b", "sequences": ["AC", "MK"]}]


def test_every_faulty_row_is_named_and_nothing_of_the_request_is_asked() -> None:
    asked: list[AskedRow] = []
    with serving(lambda task, rows: asked.extend(rows) or []) as server:  # type: ignore[func-returns-value]
        status, answer = send(server, {"task": "core", "sequences": ["ACGT", "MKVLA", " ", None, ["AC", "GT"], {}]})
    assert status == 400 and not asked
    rows = {fault["row"]: fault["message"] for fault in answer["error"]["rows"]}
    assert list(rows) == [1, 2, 3, 4, 5]
    assert "row 1: 'L' (letter 4) is not a DNA letter" in rows[1] and "choose a task about protein" in rows[1]
    assert "row 2 is empty" in rows[2] and "row 3 is NoneType" in rows[3] and "row 5 is dict" in rows[5]
    assert "has 2 sequences; expected 1 (dna)" in rows[4]
    assert "(and 4 more faulty rows)" in answer["error"]["message"]


def test_an_over_long_input_is_refused_with_its_numbers_and_never_cut() -> None:
    model, tokenizer = tiny_llama(context=256), tiny_tokenizer()
    with serving(lambda task, rows: [found.as_dict() for found in ask(model, tokenizer, task, rows)]) as server:
        refused = send(server, {"task": "core", "sequences": ["ACGT", "ACGT" * 100], "names": ["good", "long"]})
        assert send(server, {"task": "core", "sequences": ["ACGT"]})[0] == 200
    text = message_of(refused, 400)
    assert [fault["row"] for fault in refused[1]["error"]["rows"]] == [1]
    assert "long (400 letters) needs" in text and "at most the model's 256" in text and "never cut" in text


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON (JSONDecodeError, line 1)"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"[]", 400, "the body is list"),
        (b"null", 400, "the body is NoneType"),
        ({}, 400, "names no task"),
        ({"task": 3, "sequences": ["A"]}, 400, "names no task"),
        ({"task": "core"}, 400, "'sequences' is no list"),
        ({"task": "core", "sequences": []}, 400, "'sequences' is no list"),
        ({"task": "core", "sequences": "ACGT"}, 400, "'sequences' is no list"),
        ({"task": "core", "sequence": ["ACGT"]}, 400, "Did you mean 'sequences'?"),
        ({"task": "cora", "sequences": ["ACGT"]}, 404, "Did you mean 'core'?"),
        ({"task": "ss", "sequences": ["ACGT"]}, 404, "single residues"),
        ({"task": "x" * 100_000, "sequences": ["ACGT"]}, 404, "there is no task"),
        ({"task": "core", "sequences": ["ACGT"], "names": ["a", "b"]}, 400, "'names' does not fit"),
        ({"task": "core", "sequences": ["ACGT"], "names": [3]}, 400, "'names' does not fit"),
        ({"task": "core", "sequences": ["AC\u0000GT"]}, 400, "is not a DNA letter"),
        ({"task": "core", "sequences": ["ACG\ud800"]}, 400, "is not a DNA letter"),
        ({"task": "core", "sequences": ["ACGT"] * 1001}, 413, "1,001 sequences; expected at most 1,000"),
        ({"task": "core", "sequences": ["A" * 1_000_001]}, 400, "1,000,001 letters"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_requests_get_their_status_and_one_line(body: object, status: int, words: str) -> None:
    with serving() as server:
        text = message_of(send(server, body), status)
        assert words in text and "\n" not in text and len(text) < 500


def test_methods_paths_types_hosts_and_lengths_are_checked() -> None:
    with serving(limits=Limits(body_bytes=100)) as server:
        assert "GET /labels; expected POST" in message_of(send(server, method="GET"), 405)
        assert "POST /health; expected GET" in message_of(send(server, {}, path="/health"), 405)
        assert "there is no '/nowhere'" in message_of(send(server, {}, path="/nowhere"), 404)
        assert "no chat server" in message_of(send(server, {}, path="/v1/chat/completions"), 404)
        assert "text/plain" in message_of(send(server, {}, headers={"Content-Type": "text/plain"}), 415)
        assert "not called 'evil.example'" in message_of(send(server, {}, headers={"Host": "evil.example:80"}), 403)
        assert "a body of 101 bytes; expected at most 100" in message_of(send(server, b" " * 101), 413)
        assert "Content-Length '-1'" in message_of(send(server, b"", headers={"Content-Length": "-1"}), 400)
        assert send(server, {"task": "core", "sequences": ["ACGT"]}, headers={"Host": "localhost"})[0] == 200
        for raw, status in (
            (b"POST /labels HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\r\n", 411),
            (b"POST /labels HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 9999999999\r\n\r\n", 413),
            (b"nonsense\r\n\r\n", 400),
        ):
            with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=30) as connection:
                connection.sendall(raw)
                assert f" {status} ".encode() in connection.makefile("rb").read(), raw
        with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=30) as connection:
            connection.sendall(b"POST /labels HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
            connection.shutdown(socket.SHUT_WR)  # a client that ends in the middle
            assert b"a body of 1 bytes; expected 50" in connection.makefile("rb").read()
        assert send(server, method="GET", path="/health")[0] == 200


def test_too_many_waiting_requests_get_503_and_a_stopping_server_finishes_the_one_under_way() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(task: AskableTask, rows: list[AskedRow]) -> Answers:
        entered.set()
        assert go_on.wait(30)
        return echo(task, rows)

    request = {"task": "core", "sequences": ["ACGT"]}
    with ThreadPoolExecutor(3) as pool, serving(slow, Limits(waiting=2)) as server:
        first = pool.submit(send, server, request)
        assert entered.wait(30)
        second = pool.submit(send, server, request)
        while server.service._places._value:  # the second has its place
            time.sleep(0.01)
        assert "2 requests are waiting already" in message_of(send(server, request), 503)
        server.service.is_stopping = True
        go_on.set()
        assert first.result(30)[0] == 200
        assert "the server is stopping" in message_of(second.result(30), 503)


def test_a_failure_of_one_request_is_told_and_the_next_is_answered() -> None:
    fails = [True]

    def answer(task: AskableTask, rows: list[AskedRow]) -> Answers:
        if fails.pop() if fails else False:
            raise RuntimeError("out of memory")
        return echo(task, rows)

    with serving(answer) as server:
        assert "RuntimeError; see the log" in message_of(send(server, {"task": "core", "sequences": ["ACGT"]}), 500)
        assert send(server, {"task": "core", "sequences": ["ACGT"]})[0] == 200


def test_chat_requests_are_passed_on_as_they_come_and_streamed_back() -> None:
    seen: list[tuple[str, str, bytes, str | None]] = []

    class Chat(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.command, self.path, body, self.headers.get("Authorization")))
            self.send_response(HTTPStatus.CREATED)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for piece in (b"data: 1\n\n", b"data: 2\n\n"):
                self.wfile.write(piece)

        def log_message(self, *_: object) -> None:
            pass

    def check(request: Mapping[str, Any]) -> None:
        if request.get("messages") == "long":
            raise InputError("the messages have 1,300 tokens")

    with ThreadingHTTPServer(("127.0.0.1", 0), Chat) as chat, serving() as server:
        thread = threading.Thread(target=chat.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        server.chat = ChatServer(f"http://127.0.0.1:{chat.server_address[1]}", "m", check)
        assert send(server, method="GET", path="/v1/models")[1]["data"][0]["id"] == "m"
        assert "1,300 tokens" in message_of(send(server, {"messages": "long"}, path="/v1/chat/completions"), 400)
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
        connection.request(
            "POST", "/v1/chat/completions?a=b", b'{"x": 1}', {"Content-Type": "application/json", "Authorization": "Bearer k"}
        )
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Content-Type")) == (201, "text/event-stream")
        assert answer.read() == b"data: 1\n\ndata: 2\n\n"
        connection.close()
        chat.shutdown()
        thread.join()
    assert seen == [("POST", "/v1/chat/completions?a=b", b'{"x": 1}', "Bearer k")]
    with serving() as server:
        server.chat = ChatServer("http://127.0.0.1:1", "m", check)
        assert "does not answer" in message_of(send(server, {}, path="/v1/chat/completions"), 502)


def test_an_address_that_cannot_be_had_is_one_line() -> None:
    with serving() as server:
        with pytest.raises(InputError, match="cannot be had.*Set --port"):
            LabelServer("127.0.0.1", server.server_address[1])
    with pytest.raises(InputError, match="cannot be had"):
        LabelServer("no.such.host.invalid", 0)
    assert [is_loopback(host) for host in ("::1", "127.9.9.9", "0.0.0.0", "::", "example.org", "")] == [True, True] + [False] * 4
