"""Stage 7, serve: a model behind one address, label probabilities for its tasks and, beside them, OpenAI-compatible chat.

Two programs share the work. Labels are scored here (`web.label_server`), by the code that `evaluate` uses. Chat is left to a server that is
made for it and installed anyway: `transformers serve` (extra `serve`) or vLLM, started on a free port of this machine as a child and
reached through the same address under /v1/. Each holds the model, so memory is needed twice; `--engine labels` starts no chat.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_gene import runtime
from llama_gene.errors import ConfigError, MachineError
from llama_gene.models.settings import Precision  # no torch: settings alone

if TYPE_CHECKING:
    from llama_gene.data.askable import AskableTask, AskableTasks, AskedRow
    from llama_gene.web.label_server import Ask, LabelServer

Engine = Literal["transformers", "vllm"]
STOP_SECONDS = 20.0
"""How long a chat server may take to end before it is killed."""


@dataclass
class Config:
    """Serve a model."""

    model: str | None = None
    """Adapter or model folder, or a hub id. Chat needs an exported folder (`llama-gene export`)."""
    tasks: list[Path] = field(default_factory=list)
    """Tasks that may be asked: YAML files, folders of them, or a folder written by `llama-gene instruct`. Empty: those that the model was
    tuned on, which an export carries and an adapter's manifest names by their folder, where that is still there."""
    words: str = "default"
    """Words of the instructions of YAML files: default, paper or dnahlm. A folder of `instruct` has its own."""
    engine: Literal["auto", "transformers", "vllm", "labels"] = "auto"
    """Chat server to start beside: the one that is installed (vllm needs a GPU), one by name, or labels for none."""
    host: str = "127.0.0.1"
    """Address to listen at. Any other than this machine's own lets everyone who reaches it ask: there is no password."""
    port: int = 8000
    """Port to listen at; 0: any free one."""
    template: str | None = None
    """Prompt template; unset: the one that the model was tuned with."""
    precision: Precision = "float32"
    """Precision of the model that scores labels; `evaluate` scores in float32."""
    batch_tokens: int = 16384
    """Tokens of a batch, padding included."""
    max_request_bytes: int = 8_388_608
    """Largest request."""
    max_sequences: int = 1000
    """Most sequences of a request."""
    max_waiting: int = 32
    """Requests that may wait for the model; further ones are answered 503."""
    engine_timeout: float = 600.0
    """Seconds that the chat server may take to load its model."""


def run(config: Config) -> None:
    """Serve until SIGTERM or Ctrl-C: answers under way are finished, those that wait get 503, the chat server is ended."""
    if config.model is None:
        raise ConfigError("no model is given", "--model FOLDER")
    if min(config.max_request_bytes, config.max_sequences, config.max_waiting) < 1 or not 0 <= config.port < 65536:
        sizes = ", ".join(f"{name} {getattr(config, name)}" for name in ("max_request_bytes", "max_sequences", "max_waiting", "port"))
        raise ConfigError(sizes, "at least 1 each, and a port from 0 to 65535")
    from llama_gene.data.askable import read_askable_tasks
    from llama_gene.recipes.chat import prompt_template
    from llama_gene.web.label_server import ChatServer, LabelServer, LabelService, Limits

    template = prompt_template(config.model, config.template)
    tasks = read_askable_tasks(config.tasks, config.words) if config.tasks else _own_tasks(config.model)
    for name, reason in tasks.refused.items():
        runtime.get_logger().info("serve: task %s cannot be asked: %s", name, reason)
    engine = choose_engine(config)
    with LabelServer(config.host, config.port) as server:
        chat = running_engine(engine, config.model, config.engine_timeout) if engine is not None else nullcontext()
        with chat as chat_url:
            ask, check_chat = _loaded(config, template)
            server.chat = ChatServer(chat_url, config.model, check_chat) if chat_url is not None else None
            server.service = LabelService(
                ask, tasks, Path(config.model).name, Limits(config.max_request_bytes, config.max_sequences, config.max_waiting)
            )
            if not server.is_local:
                runtime.get_logger().warning("serve: %s is open to everyone who reaches this machine; there is no password", server.url)
            beside = f"chat by {engine} at {server.url}/v1 (model '{config.model}')" if engine else "no chat server"
            print(f"serving {len(tasks.by_name)} tasks at {server.url}/labels; {beside}", flush=True)
            serve_until_stopped(server)


def serve_until_stopped(server: LabelServer) -> None:
    """Answer requests until SIGTERM or SIGINT, then finish the answer under way and return; a second signal ends at once."""

    def stop(number: int, frame: object) -> None:
        if server.service.is_stopping:
            raise SystemExit(128 + number)
        server.service.is_stopping = True
        threading.Thread(target=server.shutdown).start()  # it waits for the loop that this signal interrupts

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.serve_forever(poll_interval=0.2)
        server.server_close()  # waits for the threads
        runtime.get_logger().info("serve: stopped")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _loaded(config: Config, template: str) -> tuple[Ask, Callable[[Mapping[str, Any]], None]]:
    """Load the model; return what answers questions about a task, and what checks a chat request."""
    from llama_gene.inference.ask import ask
    from llama_gene.inference.chat_session import check_chat_request
    from llama_gene.models.adapters import load_model

    model, tokenizer = load_model(str(config.model), config.precision)

    def answer(task: AskableTask, rows: list[AskedRow]) -> list[dict[str, Any]]:
        return [found.as_dict() for found in ask(model, tokenizer, task, rows, template, config.batch_tokens)]

    return answer, partial(check_chat_request, model, tokenizer)


def _own_tasks(model: str) -> AskableTasks:
    """Return the tasks that a model was tuned on. Raises ConfigError where they are not known or gone."""
    from llama_gene.recipes.chat import own_tasks

    tasks = own_tasks(model)
    if not tasks.by_name:
        raise ConfigError(f"no tasks are given, and {model} is no folder here that names tasks of its own", "--tasks FILE.yaml or FOLDER")
    return tasks


# --- the chat server -------------------------------------------------------------------------------------------------------------


def choose_engine(config: Config) -> Engine | None:
    """Return the chat server to start, None for none. Raises ConfigError or MachineError where the one asked for cannot start."""
    if config.engine == "labels":
        return None
    folder = Path(str(config.model)).expanduser()
    is_adapter = folder.is_dir() and not (folder / "config.json").is_file()
    if config.engine != "auto":
        if is_adapter:
            raise ConfigError(f"{folder} is an adapter", "one whole model folder, for a chat server", "Run llama-gene export first")
        if not _is_installed(config.engine):
            hint = "Install the extra serve" if config.engine == "transformers" else "Install vllm"
            raise MachineError(f"the server of {config.engine} is not installed", "it, or --engine labels", hint)
        return config.engine
    if is_adapter:
        runtime.get_logger().info("serve: no chat beside, %s is an adapter: `llama-gene export` makes one folder of it", folder)
        return None
    if runtime.has_gpu() and _is_installed("vllm"):
        return "vllm"
    if _is_installed("transformers"):
        return "transformers"
    runtime.get_logger().info("serve: no chat beside, neither vllm nor the extra serve is installed")
    return None


def _is_installed(engine: Engine) -> bool:
    """Return whether a chat server's program is here, with what it needs."""
    if shutil.which(engine) is None:
        return False
    if engine == "vllm":
        return True
    return all(importlib.util.find_spec(name) is not None for name in ("fastapi", "uvicorn", "openai", "pydantic"))


def engine_command(engine: Engine, model: str, port: int) -> list[str]:
    """Return the command line of a chat server.

    >>> engine_command("vllm", "my_model", 8123)
    ['vllm', 'serve', 'my_model', '--host', '127.0.0.1', '--port', '8123']
    """
    return [engine, "serve", model, "--host", "127.0.0.1", "--port", str(port)]


@contextmanager
def running_engine(engine: Engine, model: str, timeout: float) -> Iterator[str]:
    """Start a chat server on a free port of this machine; yield its address when it answers, and end it after the block.

    Raises MachineError when it ends before, or does not answer in `timeout` seconds.
    """
    port = runtime.free_port()
    url = f"http://127.0.0.1:{port}"
    log = runtime.get_logger()
    log.info("serve: starting %s", " ".join(engine_command(engine, model, port)))
    # What it says goes to standard error: on standard output stands our address alone.
    child = subprocess.Popen(engine_command(engine, model, port), stdin=subprocess.DEVNULL, stdout=2)
    try:
        _wait_until_ready(child, url, timeout)
        yield url
    finally:
        _end(child)


def _wait_until_ready(child: subprocess.Popen[bytes], url: str, timeout: float) -> None:
    """Return when `/health` answers."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if child.poll() is not None:
            raise MachineError(
                f"the chat server ended with code {child.returncode}", "a server", "Its reason stands above; or --engine labels"
            )
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (OSError, urllib.error.HTTPError):
            time.sleep(0.2)
    raise MachineError(f"the chat server did not answer in {timeout:g} s", "a server", "Set --engine_timeout; what it said stands above")


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a program, by force if it does not."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
