"""An OpenAI-compatible endpoint, played by a small server on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from llama_gene.errors import ConfigError, InputError, MachineError
from llama_gene.inference.endpoint import Endpoint, generate_answers_at, score_labels_at

KEY = "sk-very-secret-1234"
Reply = tuple[int, dict[str, str], Any]


class Server:
    """Answers each POST with what `reply` returns for (route, body, number of the request); keeps what it was asked."""

    def __init__(self) -> None:
        self.reply: Callable[[str, dict[str, Any], int], Reply] = lambda route, body, number: (500, {}, {})
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    server.asked.append((self.path, dict(self.headers), body))
                    number = len(server.asked)
                    server.under_way += 1
                    server.most_under_way = max(server.most_under_way, server.under_way)
                status, headers, answer = server.reply(self.path, body, number)
                with server.lock:
                    server.under_way -= 1
                data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    played = Server()
    thread = threading.Thread(target=played.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield played
    played.http.shutdown()
    played.http.server_close()
    thread.join()


def said(text: Any) -> Reply:
    return 200, {}, {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}


def echoed(tokens: list[str], values: list[float | None]) -> Reply:
    return 200, {}, {"choices": [{"text": "".join(tokens), "logprobs": {"tokens": tokens, "token_logprobs": values}}]}


def letter_by_letter(route: str, body: dict[str, Any], number: int) -> Reply:
    """Score each letter as minus its place in the alphabet over 100, with a BOS in front and a generated token behind."""
    letters = list(body["prompt"])
    return echoed(["<s>", *letters, "!"], [None, *[-ord(letter.lower()) / 100 for letter in letters], -9.0])


def test_answers_come_in_the_order_of_the_messages_which_are_sent_as_they_are(server: Server) -> None:
    server.reply = lambda route, body, number: (time.sleep(0.02 if number % 2 else 0), said(f" {body['messages'][0]['content'][::-1]}\n"))[
        1
    ]
    messages = [f"Is it a promoter?\n\n### Input:\nACGT{i}" for i in range(9)]
    assert generate_answers_at(Endpoint(server.url, "gene"), messages, max_new_tokens=8) == [message[::-1].strip() for message in messages]
    route, headers, body = next(asked for asked in server.asked if asked[2]["messages"][0]["content"] == messages[3])
    assert route == "/v1/chat/completions" and "Authorization" not in headers
    assert body == {
        "model": "gene", "messages": [{"role": "user", "content": messages[3]}], "max_tokens": 8, "temperature": 0.0,
    }  # fmt: skip


def test_no_more_requests_are_under_way_than_allowed(server: Server) -> None:
    server.reply = lambda route, body, number: (time.sleep(0.02), said("yes"))[1]
    generate_answers_at(Endpoint(server.url, "gene", concurrency=3), ["?"] * 12)
    assert 2 <= server.most_under_way <= 3


def test_a_busy_server_is_asked_again_and_a_broken_one_given_up(server: Server) -> None:
    server.reply = lambda route, body, number: said("yes") if number == 4 else ((429, {"Retry-After": "0"}, {}), (503, {}, {}))[number % 2]
    assert generate_answers_at(Endpoint(server.url, "gene", first_wait=0.001), ["?"]) == ["yes"]
    assert len(server.asked) == 4
    server.reply = lambda route, body, number: (500, {}, {"error": "out of memory"})
    with pytest.raises(MachineError, match="no answer in 3 tries, at last status 500.*out of memory"):
        generate_answers_at(Endpoint(server.url, "gene", retries=2, first_wait=0.001), ["?"])


def test_a_server_that_does_not_answer_in_time_or_at_all_is_an_error(server: Server) -> None:
    server.reply = lambda route, body, number: (time.sleep(0.3), said("late"))[1]
    with pytest.raises(MachineError, match="timed out"):
        generate_answers_at(Endpoint(server.url, "gene", timeout=0.05, retries=1, first_wait=0.001), ["?"])
    with pytest.raises(MachineError, match="no answer in 1 tries"):
        generate_answers_at(Endpoint("http://127.0.0.1:9/v1", "gene", retries=0), ["?"])


def test_the_key_goes_into_the_header_and_nowhere_else(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENE_KEY", KEY)
    endpoint = Endpoint(server.url, "gene", key_variable="GENE_KEY")
    assert KEY not in repr(endpoint) and KEY not in json.dumps(endpoint.describe())
    server.reply = lambda route, body, number: (401, {}, {"error": {"message": f"Incorrect API key provided: {KEY}"}})
    with pytest.raises(InputError) as caught:
        generate_answers_at(endpoint, ["?"])
    assert KEY not in str(caught.value) and "Check the key in GENE_KEY" in str(caught.value)
    _, headers, body = server.asked[0]
    assert headers["Authorization"] == f"Bearer {KEY}" and KEY not in json.dumps(body)
    assert len(server.asked) == 1  # a bad key is not tried again


def test_a_redirect_is_not_followed_with_the_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENE_KEY", KEY)
    server.reply = lambda route, body, number: (302, {"Location": f"{server.url}/elsewhere"}, {})
    with pytest.raises(InputError, match="refused with status 302"):
        generate_answers_at(Endpoint(server.url, "gene", key_variable="GENE_KEY"), ["?"])
    assert len(server.asked) == 1


def test_addresses_and_missing_keys_are_refused_before_a_request() -> None:
    with pytest.raises(ConfigError, match="GENE_KEY_UNSET is not set"):
        Endpoint("http://127.0.0.1/v1", "gene", key_variable="GENE_KEY_UNSET")
    for url in ("127.0.0.1:8000/v1", "file:///etc/passwd", "https://user:word@host/v1", "https://host/v1?key=1"):
        with pytest.raises(ConfigError, match="address"):
            Endpoint(url, "gene")


def test_an_answer_without_text_or_json_is_an_error(server: Server) -> None:
    for reply, message in [
        (said(None), "without text"),
        ((200, {}, "<html>"), "something else than JSON"),
        ((200, {}, {}), "without choices"),
    ]:
        server.reply = lambda route, body, number, reply=reply: reply  # type: ignore[misc]
        with pytest.raises(InputError, match=message):
            generate_answers_at(Endpoint(server.url, "gene"), ["?"])


def test_labels_are_scored_by_their_own_tokens(server: Server) -> None:
    server.reply = letter_by_letter
    scores = score_labels_at(Endpoint(server.url, "gene"), ["is it?\n", "yes or no?\n"], ["yes", "no", "a!b"])
    expected = [-sum(map(ord, "yes")) / 100, -sum(map(ord, "no")) / 100, -sum(map(ord, "a!b")) / 100]
    np.testing.assert_allclose(scores, [expected, expected])
    route, _, body = server.asked[0]
    assert route == "/v1/completions" and body["echo"] is True and body["logprobs"] == 1


@pytest.mark.parametrize(
    "reply",
    [
        (400, {}, {"error": "echo is not supported"}),
        (404, {}, {"detail": "Not Found"}),
        (200, {}, {"choices": [{"text": "hello", "logprobs": None}]}),
        echoed(["y", "e", "s"], [-1.0, -1.0, -1.0]),
        echoed(["is it?", "\nyes"], [None, -1.0]),
        echoed(["is it?", "\n", "yes"], [None, -1.0, None]),
    ],
)
def test_a_server_that_cannot_score_labels_names_the_other_scorer(server: Server, reply: Reply) -> None:
    server.reply = lambda route, body, number: reply
    with pytest.raises(InputError, match="Use --scorer generate"):
        score_labels_at(Endpoint(server.url, "gene"), ["is it?\n"], ["yes"])


def test_a_label_that_another_begins_with_is_refused_without_an_end_of_text() -> None:
    with pytest.raises(InputError, match="label 'EC 1.1', with which 'EC 1.1.2' begins"):
        score_labels_at(Endpoint("http://127.0.0.1/v1", "gene"), ["?"], ["EC 1.1", "EC 1.1.2"])
    with pytest.raises(InputError, match="an empty label"):
        score_labels_at(Endpoint("http://127.0.0.1/v1", "gene"), ["?"], [""])
