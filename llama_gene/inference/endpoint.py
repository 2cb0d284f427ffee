"""Evaluate a model behind an OpenAI-compatible HTTP endpoint (vLLM, llama.cpp, Ollama, our `serve`, a company's).

*Generation* goes to `/chat/completions`: the user message (the instruction, or the instruction, "### Input:" and the input) is sent as it
is, and the server's chat template puts its own text around it. A model of ours carries our template as its chat template, so it reads the
prompt that it was trained on; another model reads the same message in its own words.

*Label likelihood* goes to `/completions` with `echo` and `logprobs`: the text prompt + label is sent, and the log-probabilities of the
tokens that spell the label are summed. The caller renders the prompt (`render_prompt`), since no chat template is applied there; BOS is
the server's affair. EOS cannot be asked for in text, so a label that another label begins with is refused. A server without
log-probabilities of the prompt (most commercial ones) gives an error that names `--scorer generate`.

Requests that time out, are refused for their number (429) or fail in the server (5xx) are tried again after 1, 2, 4 ... seconds, or as
long as `Retry-After` says. A key is read from the environment variable that the user names; it is put into the request's header and
nowhere else: it is cut out of the server's error texts, and a redirect, which could carry it elsewhere, is an error.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from llama_gene.errors import ConfigError, InputError, MachineError

LONGEST_WAIT = 60.0  # seconds, also where Retry-After asks for more
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
Result = TypeVar("Result")


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served and how patiently it is asked."""

    url: str
    """Address up to and with the version: http://127.0.0.1:8000/v1."""
    model: str
    """The model's name at that server."""
    key_variable: str | None = None
    """Environment variable that holds the key; unset: no key is sent."""
    timeout: float = 120.0
    """Seconds to wait for an answer."""
    retries: int = 5
    """Further tries of a request that may succeed later."""
    concurrency: int = 8
    """Requests under way at a time."""
    first_wait: float = 1.0
    """Seconds before the first further try; doubled each time."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"endpoint address '{self.url}'", "http(s)://HOST[:PORT]/v1")
        if parts.username is not None or parts.password is not None or parts.query:
            raise ConfigError(
                "an endpoint address with a user, a password or a query", "the address alone", "Name a key's variable instead"
            )
        if self.timeout <= 0 or self.retries < 0 or self.concurrency < 1 or self.first_wait < 0:
            raise ConfigError("endpoint: timeout, retries, concurrency or wait below its least", "above 0 s, 0, 1 and 0 s")
        if self.key_variable is not None and not os.environ.get(self.key_variable):
            raise ConfigError(f"environment variable {self.key_variable} is not set", "the endpoint's key in it")

    def describe(self) -> dict[str, Any]:
        """Return what a manifest or results.json may hold: address and model name, no key."""
        return {"url": self.url, "model": self.model}


def generate_answers_at(
    endpoint: Endpoint, user_messages: Sequence[str], max_new_tokens: int = 32, temperature: float = 0.0, progress: bool = False
) -> list[str]:
    """Return the served model's answer to each user message, stripped of outer blanks; the server's chat template is applied.

    Raises InputError for an answer without text and for a refused request, MachineError when the server cannot be reached.
    """

    def ask(message: str) -> str:
        body = {
            "model": endpoint.model, "messages": [{"role": "user", "content": message}],
            "max_tokens": max_new_tokens, "temperature": temperature,
        }  # fmt: skip
        content = _first_choice(post(endpoint, "chat/completions", body)).get("message")
        text = content.get("content") if isinstance(content, dict) else None
        if not isinstance(text, str):
            raise InputError(f"an answer of {endpoint.url} without text", "choices[0].message.content", "Is it a chat model?")
        return text.strip()

    return _map(endpoint, ask, user_messages, "answering", progress)


def score_labels_at(endpoint: Endpoint, prompts: Sequence[str], labels: Sequence[str], progress: bool = False) -> NDArray[np.float64]:
    """Return the log-likelihood in nats of each label's text behind each prompt's text, shape (N, K), without EOS.

    Raises InputError when the server gives no log-probabilities of its prompt, when its tokens do not spell the text or run across the
    seam between prompt and label, and when one label begins with another.
    """
    for label in labels:
        longer = [other for other in labels if other != label and other.startswith(label)]
        if not label or longer:
            raise InputError(
                f"label '{label}', with which '{longer[0]}' begins" if label else "an empty label",
                "labels that an endpoint can tell apart without an end of text",
                "Use --scorer generate",
            )

    def score(pair: tuple[str, str]) -> float:
        prompt, label = pair
        body = {
            "model": endpoint.model, "prompt": prompt + label, "max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1,
        }  # fmt: skip
        try:
            choice = _first_choice(post(endpoint, "completions", body))
        except _RefusedError as error:
            if error.status in (400, 404, 405, 422, 501):
                raise _no_logprobs(endpoint, str(error.found)) from error
            raise
        return label_log_likelihood(endpoint, choice, prompt, label)

    pairs = [(prompt, label) for prompt in prompts for label in labels]
    return np.array(_map(endpoint, score, pairs, "scoring", progress), dtype=np.float64).reshape(len(prompts), len(labels))


def label_log_likelihood(endpoint: Endpoint, choice: dict[str, Any], prompt: str, label: str) -> float:
    """Return the sum over the tokens that spell `label` in an echoed completion.

    Tokens are placed by their texts, not by `text_offset`, which counts a BOS that the text does not have at some servers; what the server
    generated behind the label is left out.
    """
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("tokens") if isinstance(logprobs, dict) else None
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values):
        raise _no_logprobs(endpoint, "it sent none")
    begin = "".join(tokens).find(prompt + label)
    if begin < 0:
        raise _no_logprobs(endpoint, "its tokens do not spell the prompt that was sent")
    start, stop = begin + len(prompt), begin + len(prompt) + len(label)
    total, place = 0.0, 0
    for token, value in zip(tokens, values, strict=True):
        first, place = place, place + len(token)
        if place <= start or first >= stop:
            continue
        if first < start or place > stop or value is None:
            raise InputError(
                f"token {token!r} of {endpoint.url} reaches across the seam of prompt and label '{label}', or has no log-probability",
                "a label that is spelled by tokens of its own",
                "Use --scorer generate",
            )
        total += float(value)
    return total


# --- requests --------------------------------------------------------------------------------------------------------------------


class _RefusedError(InputError):
    """The server answered and said no."""

    status = 0


def post(endpoint: Endpoint, route: str, body: dict[str, Any]) -> Any:
    """Return the JSON that the server answers with, after as many tries as `endpoint` allows.

    Raises InputError for an answer that will not change (bad key, unknown model, refused request), MachineError after the last try.
    """
    key = os.environ.get(endpoint.key_variable, "") if endpoint.key_variable else ""
    headers = {"Content-Type": "application/json", "Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    address = f"{endpoint.url.rstrip('/')}/{route}"
    request = urllib.request.Request(address, data=json.dumps(body).encode(), headers=headers, method="POST")
    problem = ""
    for attempt in range(endpoint.retries + 1):
        wait = endpoint.first_wait * 2**attempt
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=endpoint.timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            problem = f"status {error.code}: {_text_of(error, key)}"
            if error.code not in RETRIED:
                raise _refusal(endpoint, address, error.code, problem) from None  # the chain would hold the request and its key
            wait = _asked_wait(error.headers.get("Retry-After"), wait)
        except json.JSONDecodeError:
            raise InputError(f"{address} answered with something else than JSON", "an OpenAI-compatible API", "Check the address") from None
        except (OSError, http.client.HTTPException) as error:  # refused connections, time-outs, cut answers; URLError is an OSError
            problem = _without_key(str(error) or type(error).__name__, key)
        if attempt < endpoint.retries:
            time.sleep(min(wait, LONGEST_WAIT))
    raise MachineError(f"{address} gave no answer in {endpoint.retries + 1} tries, at last {problem}", "a server that answers")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow nothing: urllib would send the key's header along, to any host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _refusal(endpoint: Endpoint, address: str, status: int, problem: str) -> _RefusedError:
    """Return the error of an answer that will not change."""
    action = ""
    if status in (401, 403):
        action = f"Check the key in {endpoint.key_variable}" if endpoint.key_variable else "Name the environment variable of its key"
    elif status == 404:
        action = f"Check the address and the model's name '{endpoint.model}'"
    elif 300 <= status < 400:
        action = "Give the address that it redirects to"
    error = _RefusedError(f"{address} refused with {problem}", "an answer", action)
    error.status = status
    return error


def _no_logprobs(endpoint: Endpoint, why: str) -> InputError:
    """Return the error of a server that cannot score labels."""
    return InputError(
        f"{endpoint.url} gives no log-probabilities of a prompt's tokens ({why})",
        "a server whose /completions knows echo and logprobs",
        "Use --scorer generate",
    )


def _first_choice(answer: Any) -> dict[str, Any]:
    """Return the first choice of an answer. Raises InputError where there is none."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise InputError("an endpoint's answer without choices", "an OpenAI-compatible API", "Check the address")
    return choices[0]


def _text_of(error: urllib.error.HTTPError, key: str) -> str:
    """Return the beginning of a refusal's text, on one line."""
    try:
        text = error.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        text = str(error.reason)
    return _without_key(" ".join(text.split()), key)[:300]


def _without_key(text: str, key: str) -> str:
    return text.replace(key, "[key]") if key else text


def _asked_wait(header: str | None, wait: float) -> float:
    """Return the seconds that Retry-After asks for; a date or nothing leaves our own."""
    try:
        return max(0.0, float(header)) if header else wait
    except ValueError:
        return wait


def _map(endpoint: Endpoint, ask: Callable[[Any], Result], items: Sequence[Any], what: str, progress: bool) -> list[Result]:
    """Return `ask` of each item, in order, several at a time; the first error stops what has not begun."""
    with (
        ThreadPoolExecutor(endpoint.concurrency) as pool,
        tqdm(total=len(items), desc=what, unit="request", disable=not progress) as bar,
    ):
        futures = [pool.submit(ask, item) for item in items]
        results = []
        try:
            for future in futures:
                results.append(future.result())
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return results
