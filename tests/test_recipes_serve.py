"""The serve stage: which chat server, how it starts and ends, SIGTERM, and `transformers serve` on an exported folder."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llama_gene import runtime
from llama_gene.data.prompts import encode_prompt
from llama_gene.errors import ConfigError, MachineError, MissingFileError
from llama_gene.inference.generate import generate_answers
from llama_gene.models.adapters import load_model
from llama_gene.recipes import serve
from llama_gene.recipes.serve import Config, choose_engine, run, running_engine
from tests.tiny_models import save_adapter, save_model, tiny_llama, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[1]
TASK = "name: core\ntitle: core promoter detection\nfamily: classification\nstrand: sense\nlabels: {0: no, 1: promoter}\ntest: [t.csv]\n"
FAKE = """#!{python}
import http.server, json, sys
assert sys.argv[1] == "serve" and sys.argv[3:5] == ["--host", "127.0.0.1"] and sys.argv[5] == "--port"
class Chat(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(sys.argv[2]).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[6])), Chat).serve_forever()
"""
HAS_SERVING = all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn", "openai", "pydantic"))


def fake_program(folder: Path, name: str, text: str = FAKE) -> Path:
    """Write a program that stands in for a chat server; return its folder."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(text.replace("{python}", sys.executable))
    (folder / "bin" / name).chmod(0o755)
    return folder / "bin"


def get(url: str) -> Any:
    """Return the JSON at an address."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.loads(answer.read())


def post(url: str, body: object) -> Any:
    """Return the JSON that answers a request."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())


@contextmanager
def serving(arguments: list[str], environment: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `llama-gene serve` as a program; give its address and the process, which is killed if the block leaves it."""
    command = [sys.executable, "-m", "llama_gene.cli", "serve", "--port", "0", *arguments]
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stderr is not None
        line = child.stdout.readline()
        found = re.match(r"serving 1 tasks at (http://127\.0\.0\.1:\d+)/labels", line)
        assert found, line + child.stderr.read()
        yield found[1], child
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate()


def test_an_adapter_has_labels_alone_and_a_named_server_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake_program(tmp_path, "vllm")))
    monkeypatch.setattr(runtime, "has_gpu", lambda: True)
    adapter, whole = tmp_path / "adapter", tmp_path / "whole"
    for folder, name in ((adapter, "adapter_config.json"), (whole, "config.json")):
        folder.mkdir()
        (folder / name).write_text("{}")
    assert choose_engine(Config(model=str(adapter))) is None
    assert choose_engine(Config(model=str(whole), engine="labels")) is None
    assert choose_engine(Config(model=str(whole))) == choose_engine(Config(model=str(whole), engine="vllm")) == "vllm"
    with pytest.raises(ConfigError, match="llama-gene export"):
        choose_engine(Config(model=str(adapter), engine="vllm"))
    with pytest.raises(MachineError, match="Install the extra serve"):
        choose_engine(Config(model=str(whole), engine="transformers"))
    monkeypatch.setattr(runtime, "has_gpu", lambda: False)
    assert choose_engine(Config(model=str(whole))) is None


def test_a_chat_server_that_dies_or_hangs_is_one_error_and_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake_program(tmp_path, "vllm", "#!{python}\nraise SystemExit(3)\n")))
    with pytest.raises(MachineError, match="ended with code 3"), running_engine("vllm", "m", 60):
        pass
    fake_program(tmp_path, "vllm", "#!{python}\nimport time\ntime.sleep(60)\n")
    started: list[subprocess.Popen[bytes]] = []
    original = subprocess.Popen
    monkeypatch.setattr(serve.subprocess, "Popen", lambda *args, **kwargs: started.append(original(*args, **kwargs)) or started[-1])
    with pytest.raises(MachineError, match=r"did not answer in 0\.3 s"), running_engine("vllm", "m", 0.3):
        pass
    assert started[0].returncode == -signal.SIGTERM


def test_settings_that_contradict_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--model"):
        run(Config())
    with pytest.raises(ConfigError, match="expected at least 1 each, and a port from 0 to 65535"):
        run(Config(model="m", port=70_000))
    with pytest.raises(ConfigError, match="no tasks are given"):
        run(Config(model=str(tmp_path)))
    with pytest.raises(MissingFileError):
        run(Config(model=str(tmp_path), tasks=[tmp_path / "nowhere.yaml"]))


def test_one_address_serves_labels_and_chat_until_sigterm_which_ends_both(tmp_path: Path) -> None:
    programs = fake_program(tmp_path, "vllm")
    (tmp_path / "core.yaml").write_text(TASK)
    folder = save_model(tiny_llama(), tiny_tokenizer(), tmp_path / "model")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    with serving(["--model", str(folder), "--tasks", str(tmp_path / "core.yaml"), "--engine", "vllm"], environment) as (url, child):
        assert get(f"{url}/health")["model"] == "model"
        assert get(f"{url}/v1/models")["data"][0]["id"] == get(f"{url}/v1/else") == str(folder)  # the fake server says its model
        answer = post(f"{url}/labels", {"task": "core", "sequences": ["ACGT"]})["answers"][0]
        assert sum(answer["probabilities"].values()) == pytest.approx(1) and set(answer["probabilities"]) == {"no", "promoter"}
        assert child.stderr is not None
        started = next(line for line in child.stderr if "starting vllm serve" in line)
        engine_port = int(started.rsplit("--port ", 1)[1])
        child.send_signal(signal.SIGTERM)
        assert child.wait(120) == 0
    for port in (engine_port, int(url.rsplit(":", 1)[1])):
        with pytest.raises(OSError):
            get(f"http://127.0.0.1:{port}/health")


@pytest.mark.skipif(not HAS_SERVING, reason="transformers serve needs fastapi, uvicorn and openai (extra serve)")
def test_an_exported_folder_loads_as_it_is_in_transformers_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llama_gene.recipes import export

    adapter = save_adapter(tmp_path)
    folder = export.run(export.Config(model=adapter, output_dir=tmp_path / "exported"))
    messages = [
        {"role": "user", "content": "Is it?\n\n### Input:\nACGTACGT"},
        {"role": "assistant", "content": "Non-promoter"},
        {"role": "user", "content": "And ACGT?"},
    ]
    history = [(messages[0]["content"], messages[1]["content"])]
    model, tokenizer = load_model(folder)
    prompt = encode_prompt(tokenizer, messages[2]["content"], history=history)
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert list(rendered["input_ids"]) == prompt  # what the server feeds, token for token
    wanted = generate_answers(model, tokenizer, [prompt], max_new_tokens=12)[0]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    body = {"model": str(folder), "messages": messages, "max_tokens": 12, "temperature": 0.0}
    with running_engine("transformers", str(folder), 300) as url:
        answer = post(f"{url}/v1/chat/completions", body)
        streamed = _streamed(url, {**body, "stream": True})
    assert answer["usage"]["prompt_tokens"] == len(prompt)
    assert answer["choices"][0]["message"]["content"].strip() == wanted
    assert streamed.strip() == wanted
    time.sleep(0.1)
    with pytest.raises(OSError):
        get(f"{url}/health")


def _streamed(url: str, body: dict[str, object]) -> str:
    """Return the text of a streamed chat completion."""
    address = url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=120)
    connection.request("POST", "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    text = connection.getresponse().read().decode()
    connection.close()
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event.get("choices"))
