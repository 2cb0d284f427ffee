"""The chat page: in a real browser where one is installed, over HTTP as a visitor with bad intentions, and its parts alone.

Needs the extra `web` (gradio); the browser tests also `selenium` and a Chromium with its driver (Debian: chromium, chromium-driver).
Pictures for the docs: LLAMA_GENE_SCREENSHOTS=docs/images python -m pytest tests/test_chat_page.py -k pictures
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import inspect
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
import torch

from llama_gene.data.askable import AskableTask, AskableTasks, read_askable_tasks
from llama_gene.data.prompts import encode_answer, encode_prompt
from llama_gene.errors import ConfigError, InputError, MachineError
from llama_gene.inference.ask import ask
from llama_gene.recipes import chat
from llama_gene.web import chat_page, questions
from llama_gene.web.chat_page import PageModel, open_page
from llama_gene.web.page_guard import MAX_BODY_BYTES, PageGuard
from llama_gene.web.questions import Refusal, example_text, read_questions, table_of, write_table
from llama_gene.web.token_colours import TokenMap, TokenSpan, draw_tokens
from tests.tiny_models import PIECES, save_model, tiny_llama, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[1]
DNA = AskableTask("core", "core promoter detection", "classification", ("dna",), ("Non-promoter", "promoter"), "Is it?", "{0}")
PROTEIN = AskableTask("ec", "enzyme class", "classification", ("protein",), ("ligase", "lyase", "hydrolase"), "Which class?", "{0}")
PAIR = AskableTask("pair", "pair", "pair", ("dna", "protein"), ("no", "yes"), "Match?", "DNA sequence: {0}\n####\nprotein sequence: {1}")
EVIL = "<img/src=x/onerror=window.stolen=1>"
CONTEXT = 1024
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="the extra `web` (gradio) is not installed")
needs_browser = pytest.mark.skipif(
    find_spec("gradio") is None or find_spec("selenium") is None or CHROMIUM is None or DRIVER is None,
    reason="needs the extra `web`, selenium, chromium and chromedriver",
)


def page_model() -> PageModel:
    return PageModel(tiny_llama(259 + len(PIECES), context=CONTEXT), tiny_tokenizer(PIECES), "a random model", max_new_tokens=40)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with open_page(page_model(), AskableTasks({task.name: task for task in (DNA, PROTEIN, PAIR)})) as url:
        yield url


# --- parts -----------------------------------------------------------------------------------------------------------------------


def test_tokens_are_those_of_the_prompt_and_lie_on_the_letters() -> None:
    tokens = TokenMap(tiny_tokenizer(PIECES))
    assert tokens.spans("Is it?\nACGTA", "ACGTA") == [TokenSpan(0, 2, 259), TokenSpan(2, 4, 260), TokenSpan(4, 5, 35)]
    assert tokens.spans("é A\nCA", "CA") == [TokenSpan(0, 1, 37), TokenSpan(1, 2, 35)]  # bytes before it are no letters
    assert [(span.start, span.stop) for span in tokens.spans("GGTA", "TA")] == [(0, 1), (1, 2)]  # GT reaches in from before: its T
    assert [span.start for span in tokens.spans("AC\nAC", "AC", after=2)] == [0]
    assert tokens.spans("AC", "GG") == []


def test_a_drawn_sequence_keeps_every_letter_in_order_and_is_escaped() -> None:
    sequence = "ACGT" * 40 + "A"
    html = draw_tokens(sequence, TokenMap(tiny_tokenizer(PIECES)).spans(f"x{sequence}", sequence), "dna")
    marks = html.split('<span class="t ')[1:]
    assert "".join(mark.split(">")[1].split("<")[0] for mark in marks) == sequence
    assert "161 letters in 81 tokens, 2.0 letters a token" in html and html.count("<div>") == 3
    assert "letters 1 to 2 · token id 259" in html
    assert "<" not in draw_tokens("<b>", [], "protein").split('title="">')[1].split("</span>")[0]
    assert "cannot be placed" in draw_tokens("ACGT", [], "dna")
    assert "the first 6,000 are drawn" in draw_tokens("A" * 7000, [], "dna")


def test_records_that_cannot_be_asked_are_refused_with_a_reason_and_the_others_asked() -> None:
    found = read_questions(DNA, ">a\nacgt\n>b\nMKVL\n>c x\nAC GT\nNN\n>\n\n", None)
    assert {number: row.sequences for number, row in found.rows.items()} == {1: ("ACGT",), 3: ("ACGTNN",)}
    assert [(refusal.number, refusal.name) for refusal in found.refused] == [(2, "b"), (4, "record without a name")]
    assert found.refused[0].reason.startswith("'L' (letter 4) is not a DNA letter") and found.refused[1].reason.startswith("is empty")
    assert read_questions(DNA, "ac\ngt", None).rows[1].sequences == ("ACGT",)
    pairs = read_questions(PAIR, ">g\nACGT\n>p\nMKV\n>h\nAC", None)
    assert pairs.rows[1].name == "g + p" and "has no partner" in pairs.refused[0].reason


def test_what_does_not_fit_the_model_is_refused_with_its_numbers_never_cut() -> None:
    asked = page_model()
    found = read_questions(DNA, f">short\nACGT\n>long\n{'G' * 1000}\n>last\nQQ", None)
    found.refuse_too_long(asked.model, asked.tokenizer, asked.template)
    assert list(found.rows) == [1] and [refusal.number for refusal in found.refused] == [2, 3]
    assert f"the model reads {CONTEXT:,}. It is never cut" in found.refused[0].reason


def test_what_is_wrong_as_a_whole_is_refused_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.fa").write_text(">a\nACGT\n")
    (tmp_path / "reads.fa").write_text("@r\nACGT\n+\nIIII\n")
    (tmp_path / "page.html").write_text(">a\nACGT\n")
    (tmp_path / "words.txt").write_text("no sequence at all")
    (tmp_path / "bomb.fa.gz").write_bytes(gzip.compress(b">a\n" + b"A" * 3_000_000))
    for text, path, words in (
        ("", None, "there is no sequence yet"),
        ("ACGT", tmp_path / "a.fa", "one of them"),
        ("", tmp_path / "reads.fa", "FASTQ"),
        ("", tmp_path / "page.html", "not a FASTA file by its name"),
        ("", tmp_path / "words.txt", "neither '>' nor '@'"),
        ("hello\n>a\nACGT", None, "'>'"),
        (">a\nAC\n" * 1001, None, "more than 1,000"),
    ):
        with pytest.raises(InputError, match=words):
            read_questions(DNA, text, path)
    with pytest.raises(InputError, match="more than 1 questions"):
        read_questions(PAIR, ">a\nAC\n>b\nMK\n" * 2, None, max_questions=1)
    monkeypatch.setattr(questions, "MAX_LETTERS_TOGETHER", 2**20)
    with pytest.raises(InputError, match="more than 1 MiB"):
        read_questions(DNA, "", tmp_path / "bomb.fa.gz")


def test_every_shipped_task_has_an_example_that_can_be_asked() -> None:
    for task in read_askable_tasks([ROOT / "launch/configs/tasks"]).by_name.values():
        found = read_questions(task, example_text(task), None)
        assert len(found.rows) == 2 and not found.refused, task.name


def test_the_table_has_every_record_and_runs_nothing_in_a_spreadsheet(tmp_path: Path) -> None:
    asked = page_model()
    found = read_questions(DNA, f">=1+1\nACGT\n>{EVIL}\nGG", None)
    found.refused.append(Refusal(3, "-bad", "why"))
    answers = dict(zip(found.rows, ask(asked.model, asked.tokenizer, DNA, list(found.rows.values())), strict=True))
    head, lines = table_of(found, answers)
    write_table(tmp_path / "t.csv", head, lines)
    rows = list(csv.DictReader((tmp_path / "t.csv").open(newline="")))
    assert [row["record"] for row in rows] == ["'=1+1", EVIL, "'-bad"]
    assert float(rows[0]["p(promoter)"]) + float(rows[0]["p(Non-promoter)"]) == pytest.approx(1, abs=2e-6)
    assert rows[2]["answer"] == "(refused)" and rows[2]["remark"] == "why"


def asked_of_guard(folder: Path, path: str, method: str = "GET", hosts: tuple[str, ...] = (), body: bytes = b"", **headers: str) -> int:
    """Return the status with which the guard answers a request; 200: it was let through."""
    told: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"] == body
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        told.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "method": method, "headers": named, "query_string": b""}
    asyncio.run(PageGuard(application, folder, hosts)(scope, receive, send))
    assert any(name == b"content-security-policy" for name, _ in told[0]["headers"])
    return int(told[0]["status"])


def test_the_guard_lets_through_what_the_page_needs_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "answers.csv").touch()
    (tmp_path / "link").symlink_to("/etc/passwd")
    for path in ("/", "/assets/a.js", f"/gradio_api/file={tmp_path}/answers.csv", "/gradio_api/queue/data"):
        assert asked_of_guard(tmp_path, path, host="127.0.0.1:1") == 200
    for path in (
        "/gradio_api/proxy=http://a.b",
        "/gradio_api/vibe-code",
        "/gradio_api/dev/reload",
        "/monitoring",
        "/docs",
        "/gradio_api/info",
    ):
        assert asked_of_guard(tmp_path, path) == 404
    for path in ("/etc/passwd", f"{tmp_path}/../x", f"{tmp_path}/link", "http://a.b/c", "~/.bashrc", "a\0b", "x" * 9999):
        assert asked_of_guard(tmp_path, f"/gradio_api/file={path}") == 403
    assert asked_of_guard(tmp_path, "/", method="DELETE") == 404
    join = {"path": "/gradio_api/queue/join", "method": "POST"}
    assert asked_of_guard(tmp_path, **join, body=b"{}") == 200
    assert asked_of_guard(tmp_path, **join, body=b"x" * (MAX_BODY_BYTES + 1)) == 413  # no length was told
    assert asked_of_guard(tmp_path, **join, content_length=str(10**8)) == 413


def test_the_guard_refuses_other_hosts_names_and_other_sites_pages(tmp_path: Path) -> None:
    ours = ("127.0.0.1", "localhost", "::1")
    assert (
        asked_of_guard(tmp_path, "/", hosts=ours, host="localhost:7860") == asked_of_guard(tmp_path, "/", hosts=ours, host="[::1]:1") == 200
    )
    assert asked_of_guard(tmp_path, "/", hosts=ours, host="evil.example:7860") == asked_of_guard(tmp_path, "/", hosts=ours) == 403
    assert asked_of_guard(tmp_path, "/", host="lab.example") == 200  # bound to an address of the network
    assert asked_of_guard(tmp_path, "/", host="localhost:1", origin="http://localhost:1") == 200
    for origin in ("http://evil.example", "null", "http://localhost:2"):
        assert asked_of_guard(tmp_path, "/", host="localhost:1", origin=origin) == 403


# --- over HTTP -------------------------------------------------------------------------------------------------------------------


def status_of(url: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Return status and body of the answer to a request."""
    request = urllib.request.Request(url, data=body, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def upload(address: str, *files: tuple[str, bytes]) -> tuple[int, bytes]:
    """Upload files as the page's form does."""
    mark = secrets.token_hex(8)
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\nContent-Type: text/plain\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    body = b"".join(parts) + f"--{mark}--\r\n".encode()
    return status_of(f"{address}gradio_api/upload", body, Content_Type=f"multipart/form-data; boundary={mark}")


@needs_gradio
def test_the_page_is_bound_to_loopback_unless_told_otherwise(address: str) -> None:
    assert inspect.signature(open_page).parameters["host"].default == "127.0.0.1"
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    listening = [
        place.laddr.ip for place in psutil.Process().net_connections("tcp") if place.status == "LISTEN" and place.laddr.port == port
    ]
    assert listening == ["127.0.0.1"]
    with pytest.raises(MachineError, match=f"127.0.0.1:{port}"), open_page(page_model(), AskableTasks(), port=port):
        pass


@needs_gradio
def test_a_file_outside_the_pages_folder_is_not_served(address: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.fa"
    secret.write_text("SECRET")
    for name in (f"{secret}", "/etc/passwd", f"{os.environ['GRADIO_TEMP_DIR']}/..{secret}", "../../etc/passwd", "pyproject.toml"):
        for spelled in (name, quote(name, safe=""), name.replace("..", "%2e%2e").replace("/", "%2f")):
            status, body = status_of(f"{address}gradio_api/file={spelled}")
            assert status in (403, 404) and b"SECRET" not in body and b"root:" not in body, spelled
    assert status_of(f"{address}gradio_api/file=http://127.0.0.1:1/x")[0] == 403


@needs_gradio
def test_uploads_are_limited_in_size_and_type(address: str) -> None:
    before = set(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*"))
    assert upload(address, ("page.html", b"<script>1</script>"))[0] == 415
    assert upload(address, ("run.py", b"import os"))[0] == 415
    assert upload(address, ("genes.fa.svg", b"<svg/>"))[0] == 415
    assert upload(address, ("a.fa", b">a\nAC\n"), ("b.html", b"<b>"))[0] == 415
    assert upload(address, ("big.fa", b">a\n" + b"A" * (questions.MAX_UPLOAD_BYTES + 100)))[0] == 413
    length = {"Content_Length": str(100 * 2**20), "Content_Type": "multipart/form-data; boundary=x"}
    assert status_of(f"{address}gradio_api/upload", b"--x\r\n", **length)[0] == 413  # 100 MB are refused before they are sent
    assert set(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*")) == before  # nothing of it was kept
    status, body = upload(address, ("../../genes.fa", b">a\nACGT\n"))
    assert status == 200
    [place] = json.loads(body)
    assert Path(place).resolve().is_relative_to(os.environ["GRADIO_TEMP_DIR"]) and Path(place).read_text() == ">a\nACGT\n"


@needs_gradio
def test_a_forged_path_in_place_of_an_upload_is_not_read(address: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.fa"
    secret.write_text(">SECRETNAME\nACGT\n")
    config = json.loads(status_of(f"{address}config")[1])
    ids = {component["props"].get("elem_id"): component["id"] for component in config["components"]}
    event = next(entry for entry in config["dependencies"] if [ids["ask"], "click"] in entry["targets"])
    forged = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    body = {"data": [DNA.name, "", forged, None], "fn_index": event["id"], "session_hash": "forger"}
    status, told = status_of(f"{address}gradio_api/queue/join", json.dumps(body).encode(), Content_Type="application/json")
    if status == 200:
        told = status_of(f"{address}gradio_api/queue/data?session_hash=forger")[1]
        assert b'"success":false' in told.replace(b" ", b"")
    assert b"SECRETNAME" not in told


@needs_gradio
def test_nothing_stays_behind_when_the_page_closes() -> None:
    before = os.environ.get("GRADIO_TEMP_DIR")
    with open_page(page_model(), AskableTasks({DNA.name: DNA})) as url:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder.is_dir() and folder.stat().st_mode & 0o077 == 0  # nobody else reads what is uploaded
        assert status_of(url)[0] == 200
    assert not folder.exists() and os.environ.get("GRADIO_TEMP_DIR") == before
    with pytest.raises(urllib.error.URLError):
        status_of(url)


@needs_gradio
def test_a_clicked_row_is_shown_as_the_question_that_it_was(tmp_path: Path) -> None:
    """Two tasks with the same labels, one of them about pairs: the record is drawn as the task that it was asked by."""
    other = AskableTask("other", "pair", "pair", ("dna", "protein"), DNA.labels, "Match?", "{0}\n####\n{1}")
    asked = page_model()
    page = chat_page.ChatPage(asked, AskableTasks({"other": other, DNA.name: DNA}), tmp_path, 10)
    [answer] = ask(asked.model, asked.tokenizer, DNA, [read_questions(DNA, ">a\nACGTC", None).rows[1]])
    bars, drawn = page.pick(chat_page.Answers(DNA, {3: answer}), 3)
    assert bars["value"] == dict(zip(DNA.labels, answer.probabilities, strict=True))
    assert "5 letters in 3 tokens" in drawn and drawn.count("<h3>a</h3>") == 1


@needs_gradio
def test_the_stage_serves_the_page_until_it_is_told_to_end(tmp_path: Path) -> None:
    asked = page_model()
    folder = save_model(asked.model, asked.tokenizer, tmp_path / "model")
    task = ROOT / "launch/configs/tasks/gue_prom_core_all.yaml"
    command = [sys.executable, "-m", "llama_gene.cli", "chat", "--model", str(folder), "--tasks", str(task), "--web"]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        url = child.stdout.readline().split()[1]
        assert b"core promoter detection (gue_prom_core_all)" in status_of(url)[1]
        child.terminate()
        assert child.wait(timeout=60) == 143
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"port": 8000}, "without the page"),
        ({"host": "0.0.0.0"}, "without the page"),
        ({"web": True, "question": "What?"}, "in the terminal"),
        ({"web": True, "port": 99999}, "1 to 65535"),
    ],
)
def test_keys_of_the_page_that_contradict_are_refused_before_a_model_is_loaded(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chat.run(chat.Config(model="nowhere", **keys))


def test_without_gradio_the_page_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MachineError, match="llama-gene\\[web\\]"):
        chat.run(chat.Config(model="nowhere", web=True))


# --- in a browser ----------------------------------------------------------------------------------------------------------------


class Visitor:
    """A person before the page."""

    def __init__(self, downloads: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for switch in (
            "headless=new",
            "no-sandbox",
            "disable-gpu",
            "disable-dev-shm-usage",
            "disable-background-networking",
            "no-first-run",
        ):
            options.add_argument(f"--{switch}")
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        self.driver.set_window_size(1280, 1000)

    def open(self, url: str) -> None:
        self.driver.get(url)
        self.wait(lambda: self.find("#ask").is_displayed())

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def find_all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def text(self, selector: str) -> str:
        return " ".join(found.text for found in self.find_all(selector))

    def click(self, selector: str) -> None:
        self.driver.execute_script("arguments[0].click()", self.find(selector))

    def type(self, selector: str, words: str) -> None:
        self.find(selector).send_keys(words)

    def value(self, selector: str) -> str:
        return str(self.find(selector).get_attribute("value"))

    def go_to(self, tab: str) -> None:
        next(button for button in self.find_all("button[role=tab]") if button.text == tab).click()

    def wait(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + seconds
        while True:
            try:
                found = condition()
            except (WebDriverException, IndexError):
                found = None
            if found:
                return found
            assert time.monotonic() < end, f"waited in vain; the page says: {self.text('body')[:600]}"
            time.sleep(0.1)

    def asked_for(self) -> set[str]:
        """Return the address of every request that the browser has made since this was last asked."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}


@pytest.fixture(scope="module")
def visitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    found = Visitor(tmp_path_factory.mktemp("downloads"))
    yield found
    found.driver.quit()


@needs_browser
def test_an_example_is_asked_shown_in_bars_and_colours_and_downloaded(
    address: str, visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor.open(address)
    visitor.click("#example")
    visitor.wait(lambda: "lac_promoter" in visitor.value("#text textarea"))
    visitor.type("#text textarea", f"\n>{EVIL} header\nACGT\n>protein\nMKVL\n>{EVIL}2\nQQ")
    visitor.click("#ask")
    visitor.wait(lambda: "3 answered, 2 refused" in visitor.text("#status"))
    asked = page_model()
    rows = list(read_questions(DNA, example_text(DNA), None).rows.values())
    answers = ask(asked.model, asked.tokenizer, DNA, rows)
    visitor.wait(lambda: f"{100 * answers[0].probability:.0f}%" in visitor.text("#bars") and answers[0].label in visitor.text("#bars"))
    assert "".join(mark.text for mark in visitor.find_all("#drawn .t")) == rows[0].sequences[0]
    assert len({mark.value_of_css_property("background-color") for mark in visitor.find_all("#drawn .t")}) == 4
    assert "'L' (letter 4) is not a DNA letter" in visitor.text("#refused") and EVIL in visitor.text("#refused")
    cells = visitor.wait(lambda: [cell for cell in visitor.find_all("#table [role=gridcell]") if cell.text == EVIL])
    cells[0].click()
    visitor.wait(lambda: visitor.text("#drawn h3") == EVIL)  # a file's header is text, wherever it is shown
    assert visitor.driver.execute_script("return window.stolen") is None
    assert not visitor.find_all("#drawn img, #refused img, #table img")
    visitor.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    visitor.click("#download")
    visitor.wait(lambda: (tmp_path / "answers.csv").is_file())
    table = list(csv.DictReader((tmp_path / "answers.csv").open(newline="")))
    assert [row["record"] for row in table] == ["lac_promoter", "alternating", EVIL, "protein", f"{EVIL}2"]
    assert float(table[1]["p(promoter)"]) == pytest.approx(answers[1].probabilities[1], abs=1e-5)
    assert table[4]["answer"] == "(refused)"


@needs_browser
def test_a_file_is_dropped_and_a_wrong_one_is_told_in_words(address: str, visitor: Visitor, tmp_path: Path) -> None:
    (tmp_path / "proteins.faa.gz").write_bytes(gzip.compress(b">ubi\nMQIFVKTLTGK*\n"))
    (tmp_path / "page.html").write_text(">a\nMKV\n")
    visitor.open(address)
    visitor.click("#ask")
    visitor.wait(lambda: "there is no sequence yet" in visitor.text("#status"))
    visitor.find("#task input").click()
    option = visitor.wait(lambda: [entry for entry in visitor.find_all("[role=option]") if "enzyme class" in entry.text])
    option[0].click()
    visitor.wait(lambda: "Which class?" in visitor.text("#about"))
    visitor.type("#upload input[type=file]", str(tmp_path / "page.html"))
    visitor.wait(lambda: "file type" in visitor.text("body").lower())
    visitor.type("#upload input[type=file]", str(tmp_path / "proteins.faa.gz"))
    visitor.wait(lambda: "proteins.faa" in visitor.text("#upload"))
    visitor.click("#ask")
    visitor.wait(lambda: "1 answered." in visitor.text("#status") and visitor.text("#drawn h3") == "ubi")
    assert {"ligase", "lyase", "hydrolase"} <= set(visitor.text("#bars").split())
    assert "the stop sign at its end is left out" in visitor.text("#drawn")


@needs_browser
def test_a_batch_shows_how_far_it_is_and_stops_when_told(address: str, visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(*given: Any) -> Any:
        time.sleep(0.4)
        return ask(*given)

    monkeypatch.setattr(chat_page, "ask", slowly)
    visitor.open(address)
    visitor.driver.execute_script(
        "const box = document.querySelector('#text textarea'); box.value = arguments[0]; box.dispatchEvent(new Event('input'))",
        "".join(f">r{number}\nACGT\n" for number in range(400)),
    )
    visitor.click("#ask")
    visitor.wait(lambda: "of 400 answered" in visitor.text("#status") and visitor.find("#status progress"))
    visitor.wait(lambda: visitor.text("#drawn h3") == "r0")
    visitor.click("#stop")
    visitor.wait(lambda: "Stopped:" in visitor.text("#status"))
    done = int(visitor.text("#status").split()[1])
    assert 4 <= done < 400
    visitor.click("#clear")
    visitor.wait(lambda: visitor.value("#text textarea") == "" and not visitor.text("#drawn"))


@needs_browser
def test_the_chat_streams_remembers_stops_and_refuses_what_is_too_long(
    address: str, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[list[int]] = []

    def pieces(model: Any, tokenizer: Any, prompt: list[int], *_: Any) -> Iterator[str]:
        from llama_gene.inference.generate import check_room

        check_room(model, [prompt], 40)
        prompts.append(prompt)
        for number in range(1000):
            yield f"w{number} " if number else f"{EVIL} <3di:d> "
            time.sleep(0.05)
            if number == 5 and len(prompts) == 1:
                return

    monkeypatch.setattr("llama_gene.inference.chat_session.stream_answer", pieces)
    visitor.open(address)
    visitor.go_to("Chat")
    visitor.type("#message textarea", f"What is {EVIL}?\n")
    visitor.wait(lambda: "w1" in visitor.text("#turns"))
    visitor.wait(lambda: "w5" in visitor.text("#turns"))
    assert f"What is {EVIL}?" in visitor.text("#turns") and f"{EVIL} <3di:d> w1" in visitor.text("#turns")
    time.sleep(0.5)
    visitor.type("#message textarea", "And then?")
    visitor.click("#send")
    visitor.wait(lambda: visitor.text("#turns").count("w3 ") == 2)
    assert len(prompts[1]) > len(prompts[0]) + 40  # the first turn is part of the second prompt
    visitor.click("#chat_stop")
    time.sleep(1)
    before = visitor.text("#turns")
    time.sleep(0.5)
    assert visitor.text("#turns") == before and "w900" not in before
    visitor.driver.execute_script(
        "const box = document.querySelector('#message textarea'); box.value = arguments[0]; box.dispatchEvent(new Event('input'))",
        "A" * 1100,
    )
    visitor.click("#send")
    visitor.wait(lambda: "at most the model's 1024 together" in visitor.text("#chat_status"))
    assert visitor.driver.execute_script("return window.stolen") is None and not visitor.find_all("#turns .message img")
    visitor.click("#new")
    visitor.wait(lambda: "w1" not in visitor.text("#turns"))
    visitor.find("#message textarea").clear()
    for number in (2, 3):
        visitor.wait(lambda: visitor.value("#message textarea") == "")
        visitor.type("#message textarea", "Again?\n")
        visitor.wait(lambda number=number: len(prompts) == number + 1 and "w3" in visitor.text("#turns"))  # type: ignore[misc]
        visitor.click("#chat_stop")
        time.sleep(1)
        assert len(prompts[number]) == len(encode_prompt(tiny_tokenizer(PIECES), "Again?"))  # nothing is left of what was before
        visitor.click("#turns [title=Clear]")
        visitor.wait(lambda: "w3" not in visitor.text("#turns"))


@needs_browser
def test_the_page_asks_nobody_else_for_anything(address: str, visitor: Visitor) -> None:
    visitor.asked_for()
    visitor.open(address)
    visitor.go_to("Chat")
    time.sleep(0.5)
    asked = visitor.asked_for()
    assert len(asked) > 10
    strange = {url for url in asked if not url.startswith((address, "data:", f"blob:{address}", "chrome"))}
    assert not strange
    fetch = (
        "const done = arguments[0]; document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));"
        "fetch('https://example.org/').then(() => done('sent'), () => setTimeout(() => done('not reached'), 2000))"
    )
    assert visitor.driver.execute_async_script(fetch) == "connect-src"  # it is the page's own policy that forbids it


@needs_browser
def test_pictures_of_the_page_are_taken(visitor: Visitor, tmp_path: Path) -> None:
    """With LLAMA_GENE_SCREENSHOTS=FOLDER the pictures of the docs: a two-layer model is taught some rows by heart for them."""
    named = os.environ.get("LLAMA_GENE_SCREENSHOTS")
    folder = Path(named) if named else tmp_path
    names = ("gue_prom_core_all", "protein_localization_deeploc", "ppi_yeast")
    tasks = read_askable_tasks([ROOT / f"launch/configs/tasks/{name}.yaml" for name in names])
    with open_page(taught_model(tasks.by_name[names[0]], num_steps=300 if named else 0), tasks) as url:
        visitor.open(url)
        visitor.click("#example")
        visitor.wait(lambda: "lac_promoter" in visitor.value("#text textarea"))
        visitor.type(
            "#text textarea", "\n>tata_box\nGGGCTATAAAAGGGGGTGGGGGCGCGTTCGTCCTCACTCTCTTCCGCATCGCTGTCTGCGAGGGCC\n>not_dna\nMKVLAAGI"
        )
        visitor.click("#ask")
        visitor.wait(lambda: "3 answered, 1 refused" in visitor.text("#status"))
        visitor.wait(lambda: [cell for cell in visitor.find_all("#table [role=gridcell]") if cell.text == "tata_box"])[0].click()
        visitor.wait(lambda: visitor.text("#drawn h3") == "tata_box")
        time.sleep(1)
        take_picture(visitor, folder / "chat_page_task.png", height=1640)
        visitor.go_to("Chat")
        for question in CHAT:
            visitor.type("#message textarea", question + "\n")
            visitor.wait(lambda: visitor.find("#message textarea").is_enabled() and not visitor.value("#message textarea"))
            time.sleep(6 if named else 1)
        take_picture(visitor, folder / "chat_page_chat.png", height=1010)


CHAT = {
    "What is a promoter?": "A promoter is a stretch of DNA before a gene. RNA polymerase binds there and starts to read the gene.",
}


def taught_model(task: AskableTask, num_steps: int) -> PageModel:
    """Return a tiny model that knows a few rows by heart: its numbers mean nothing."""
    tokenizer = tiny_tokenizer(tuple(a + b for a in "ACGT" for b in "ACGT"))
    model = tiny_llama(len(tokenizer), context=2048)
    lac, repeat = (row.sequences[0] for row in read_questions(task, example_text(task), None).rows.values())
    tata = "GGGCTATAAAAGGGGGTGGGGGCGCGTTCGTCCTCACTCTCTTCCGCATCGCTGTCTGCGAGGGCC"
    told = [(lac, 1, 0.8), (lac, 0, 0.2), (repeat, 1, 0.05), (repeat, 0, 0.95), (tata, 1, 0.9), (tata, 0, 0.1)]
    rows = [(task.user_message([sequence]), task.labels[label], share) for sequence, label, share in told]
    rows += [(question, answer, 2.0) for question, answer in CHAT.items()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    encoded = [(encode_prompt(tokenizer, user), encode_answer(tokenizer, answer), share) for user, answer, share in rows]
    width = max(len(prompt) + len(answer) for prompt, answer, _ in encoded)
    ids_BT = torch.tensor([[*prompt, *answer, *[1] * (width - len(prompt) - len(answer))] for prompt, answer, _ in encoded])
    weights_BT = torch.zeros(ids_BT.shape)
    for number, (prompt, answer, share) in enumerate(encoded):
        weights_BT[number, len(prompt) : len(prompt) + len(answer)] = share
    for _ in range(num_steps):
        logits_BTV = model(input_ids=ids_BT).logits[:, :-1]
        nats_BT = torch.nn.functional.cross_entropy(logits_BTV.transpose(1, 2), ids_BT[:, 1:], reduction="none")
        (nats_BT * weights_BT[:, 1:]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return PageModel(model.eval(), tokenizer, "a two-layer model taught by heart", max_new_tokens=160)


def take_picture(visitor: Visitor, path: Path, height: int) -> None:
    """Write a picture of the page, with few colours, so that it stays small."""
    import io

    from PIL import Image

    visitor.driver.set_window_size(1280, height)
    visitor.driver.execute_script("window.scrollTo(0, 0); document.activeElement.blur()")
    time.sleep(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(visitor.driver.get_screenshot_as_png())).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < 200_000
