"""The chat stage: one-shot questions, a conversation typed into a terminal, held-out questions, over-long ones."""

from __future__ import annotations

import builtins
import gzip
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_gene import runtime
from llama_gene.data.askable import AskedRow, read_askable_tasks
from llama_gene.data.instructions import Example, write_examples
from llama_gene.errors import ConfigError, InputError, LlamaGeneError, MismatchError
from llama_gene.inference import chat_session
from llama_gene.inference.ask import ask
from llama_gene.inference.chat_session import Conversation, split_fasta
from llama_gene.models.adapters import load_model
from llama_gene.recipes import chat
from llama_gene.recipes.chat import Config, prompt_template, run, tuned_on
from llama_gene.recipes.chat_terminal import render_bars
from tests.tiny_models import save_adapter, save_model, tiny_gpt2, tiny_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_adapter(tmp_path_factory.mktemp("chat")))


def type_lines(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Let input() read these lines, then the end of input."""
    waiting: Iterator[str] = iter(lines)

    def read(prompt: str = "") -> str:
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", read)


def test_questions_are_answered_one_by_one_and_repeatably(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    answers = run(Config(model=model, question=["What is a gene?", "ACGT?"], max_new_tokens=6))
    assert len(answers) == 2 and answers == run(Config(model=model, question=["What is a gene?", "ACGT?"], max_new_tokens=6))
    assert answers[1:] == run(Config(model=model, question="ACGT?", max_new_tokens=6))  # the first question is no part of the second
    assert "> What is a gene?" in capsys.readouterr().out


def test_a_pasted_fasta_record_loses_its_header_and_line_breaks() -> None:
    assert split_fasta("Find it.\n>x some words\nACG T\nacgt\n") == ("Find it.", "ACGTACGT")
    assert split_fasta(">a\nAC\nGT\n>b\nMKV") == ("", "ACGT\n####\nMKV")
    assert split_fasta("is 3 > 2?") == ("is 3 > 2?", "")


def test_a_conversation_remembers_until_reset(model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []
    original = Conversation.ask

    def ask(self: Conversation, message: str, show: object = None) -> str:
        seen.append(len(self.history))
        return original(self, message, None)

    monkeypatch.setattr(Conversation, "ask", ask)
    type_lines(monkeypatch, "one", "two", "/reset", "three", "", "/help", "/quit", "never asked")
    assert len(run(Config(model=model, max_new_tokens=3))) == 3
    assert seen == [0, 1, 0]
    assert "[new conversation]" in capsys.readouterr().out


def test_a_record_is_pasted_first_and_asked_about_then(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(Conversation, "ask", lambda self, message, show=None: messages.append(message) or "yes")
    type_lines(monkeypatch, ">chr1", "ACGT", "ACGT", "", "Is it a promoter?", "And now?")
    run(Config(model=model))
    assert [split_fasta(message) for message in messages] == [("Is it a promoter?", "ACGTACGT"), ("And now?", "")]
    assert "[8 letters pasted; now ask about them]" in capsys.readouterr().out


def test_a_question_longer_than_the_context_gets_one_line_and_is_never_truncated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = str(save_model(tiny_gpt2(context=256), tiny_tokenizer(), tmp_path / "small"))
    with pytest.raises(InputError, match="at most the model's 256 together"):
        run(Config(model=small, question=["A" * 300], max_new_tokens=4))
    type_lines(monkeypatch, "A" * 300, "short", "/quit")
    assert len(run(Config(model=small, max_new_tokens=4))) == 1  # the conversation goes on after the refusal
    assert "[the prompt has " in capsys.readouterr().out


def test_held_out_questions_are_marked_right_or_wrong(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "instructions"
    folder.mkdir()
    labels = {"pair": ["Conform", "Not Conform"], "core": ["promoter", "Non-promoter"]}
    common = {"family": "classification", "split": "test", "instruction": "?", "input": "ACGT", "sequences": ["ACGT"], "kinds": ["dna"]}
    rows = [{"task": task, "output": labels[task][i % 2], "labels": labels[task], **common} for task in labels for i in range(4)]
    examples = [Example(group="", oracle=None, value=None, **row) for row in rows]
    write_examples(folder / "test.jsonl", examples)
    runtime.write_manifest(folder, "instruct", {}, tasks={})
    monkeypatch.setattr(chat, "_ask_example", lambda conversation, example: "Not Conform")
    answers = run(Config(model=model, instructions=folder, num_questions=6))
    out = capsys.readouterr().out
    assert len(answers) == 6
    assert out.count("pair: ACGT") == out.count("core: ACGT") == 3  # the tasks in turn
    right = sum(line.strip().startswith("right") for line in out.splitlines())
    assert f"{right} of 6 right" in out and 0 < right < 3  # "Not Conform" is never right where the answer is "Conform"


def test_what_contradicts_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--model"):
        run(Config())
    with pytest.raises(ConfigError, match="temperature"):
        run(Config(model="nowhere", temperature=-1.0))
    with pytest.raises(ConfigError, match="both given"):
        run(Config(model="nowhere", question=["a"], instructions=tmp_path))


# --- tasks, files and what is typed wrong --------------------------------------------------------------------------------------------

TASKS = {
    "core": "title: core promoter detection\nfamily: classification\nstrand: sense\nlabels: {0: Non-promoter, 1: promoter}\n",
    "match": "title: match\nfamily: pair\nkinds: [dna, protein]\ncolumns: [a, b]\nlabels: {0: no, 1: yes}\n",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two tasks."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(f"name: {name}\n{text}test: [t.csv]\n")
    return folder


def talk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], config: Config, *lines: str) -> tuple[list[str], str]:
    """Type lines; return the answers and what was printed behind the help."""
    type_lines(monkeypatch, *lines)
    answers = run(config)
    return answers, capsys.readouterr().out.split("Ctrl-C stops an answer.\n", 1)[1]


def test_a_task_answers_pasted_and_loaded_sequences_with_the_probabilities_of_its_labels(
    model: str, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two.fa.gz").write_bytes(gzip.compress(b">one\nACGT\nacgt\n>two\nGGGG\n"))
    config = Config(model=model, tasks=[tasks])
    lines = ["/task", "/task core", "acgtacgt", ">pasted x", "ACGT", "ACGT", "", f"/load {tmp_path / 'two.fa.gz'}"]
    answers, out = talk(monkeypatch, capsys, config, *lines, "/task match", ">g", "ACGT", ">p", "MKV", "", "ACGT #### MKV")
    assert len(answers) == 6 and set(answers[:4]) <= {"Non-promoter", "promoter"} and set(answers[4:]) <= {"no", "yes"}
    for name in ("core: core promoter detection, dna", "pasted sequence (8 letters)", "pasted (8 letters)", "one (8 letters)"):
        assert name in out
    assert "two (4 letters)" in out
    assert "g + p (4 + 3 letters)" in out
    loaded, tokenizer = load_model(model)
    [wanted] = ask(loaded, tokenizer, read_askable_tasks([tasks]).get("core"), [AskedRow("x", ("ACGTACGT",))])
    bars = render_bars(wanted).split("\n", 1)[1]
    for name in ("pasted sequence", "pasted", "one"):  # typed, pasted and loaded: the same sequence, the same numbers
        assert f"{name} (8 letters)\n{bars}\n" in out


def test_history_is_shown_and_saved_as_messages_and_labels(
    model: str, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "said.json"
    lines = ["/history", "What is a gene?", "/task core", "ACGT", "/task off", "/history", f"/save {path}", f"/save {path}", "/save"]
    answers, out = talk(monkeypatch, capsys, Config(model=model, tasks=[tasks], max_new_tokens=4), *lines, "/reset", "/history")
    assert out.count("[nothing was said so far]") == 2 and out.count("> What is a gene?") == 1 and "> core: pasted sequence" in out
    assert f"{path} exists" in out and "/save without a file" in out
    saved = runtime.read_json(path)
    assert saved["messages"] == [{"role": "user", "content": "What is a gene?"}, {"role": "assistant", "content": answers[0]}]
    assert saved["labels"][0]["label"] == answers[1] and saved["labels"][0]["task"] == "core"
    assert saved["template"] == "alpaca"


def test_what_cannot_be_used_is_one_line_and_the_chat_goes_on(
    model: str, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "protein.fa").write_text(">p\nMKVLA\n")
    (tmp_path / "many.fa").write_text(">a\nAC\n" * 4)
    (tmp_path / "long.fa").write_text(">a\nACGT\n>b\n" + "AC" * 2000 + "\n")
    (tmp_path / "cut.fa.gz").write_bytes(gzip.compress(b">a\nACGT\n" * 100)[:-9])
    wrong = {
        "/tusk": "there is no command '/tusk'; expected /help lists them. Did you mean 'task'?",
        "/": "there is no command '/'",
        "/task cora": "Did you mean 'core'?",
        "/load x.fa": "no task is chosen",
        ">a\n12\n": "'1' is no letter of DNA, RNA or protein",
    }
    wrong_in_task = {
        "MKVLA": "'L' (letter 4) is not a DNA letter",
        "What is it?": "; /task off ends task core",
        "/load": "/load without a file",
        "/load nowhere.fa": "nowhere.fa does not exist",
        f"/load {tmp_path}": "is a folder",
        f"/load {tmp_path / 'protein.fa'}": "p: 'L' (letter 4)",
        f"/load {tmp_path / 'many.fa'}": "more than 3 questions",
        f"/load {tmp_path / 'long.fa'}": "b (4,000 letters) needs",
        f"/load {tmp_path / 'cut.fa.gz'}": "cannot be decompressed",
        ">\n\n": "record is empty",
    }
    lines = [line for text in [*wrong, "/task core", *wrong_in_task, "ACGT"] for line in text.split("\n")]
    answers, out = talk(monkeypatch, capsys, Config(model=model, tasks=[tasks], max_records=3), *lines)
    assert len(answers) == 1
    for words in (*wrong.values(), *wrong_in_task.values()):
        assert words.lower() in out.lower(), words


def test_ctrl_c_stops_an_answer_and_not_the_chat(model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    original = chat_session.stream_answer
    calls: list[int] = []

    def stream(*arguments: object) -> Iterator[str]:
        calls.append(1)
        if len(calls) == 1:
            yield "half an"
            raise KeyboardInterrupt
        yield from original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(chat_session, "stream_answer", stream)
    answers, out = talk(monkeypatch, capsys, Config(model=model, max_new_tokens=3), "one", "two", "/history")
    assert len(answers) == 1 and "[stopped]" in out and "> one\nhalf an\n" in out


def test_piped_input_is_a_conversation_and_what_was_not_asked_about_is_said(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"What?\n>a\nACGT\n/history\n>b\nGG"), encoding="utf-8"))
    assert len(run(Config(model=model, max_new_tokens=3))) == 1
    out = capsys.readouterr().out
    assert "> What?" in out and "[6 letters" not in out and "[what was pasted last was not asked about]" in out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\n\xff\xfe\nb\n"), encoding="utf-8"))
    with pytest.raises(LlamaGeneError, match="not UTF-8"):
        run(Config(model=model, max_new_tokens=3))
    type_lines(monkeypatch, "a \udcff b")  # the same bytes where the locale is C
    with pytest.raises(LlamaGeneError, match="not UTF-8"):
        run(Config(model=model, max_new_tokens=3))


def test_a_model_tuned_with_another_prompt_is_refused_unless_a_template_is_named(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime.write_manifest(tmp_path, "sft", {}, template="alpaca", prompt="0" * 16)
    with pytest.raises(MismatchError, match="was tuned with prompt 0000"):
        prompt_template(str(tmp_path), None)
    assert prompt_template(str(tmp_path), "dnahlm") == "dnahlm"
    assert "template 'dnahlm' is not the prompt that" in capsys.readouterr().err
    assert prompt_template(model, None) == prompt_template(model, "alpaca") == "alpaca" and not capsys.readouterr().err
    with pytest.raises(ConfigError, match="Did you mean 'alpaca'"):
        prompt_template(model, "alpacca")


def test_without_tasks_those_that_the_model_was_tuned_on_are_known(
    model: str, instructions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tuned"
    shutil.copytree(model, folder)
    facts = runtime.read_json(folder / "manifest.json")
    runtime.write_json(folder / "manifest.json", {**facts, "config": {"instructions": str(instructions)}})
    assert tuned_on(str(folder)) == instructions and tuned_on(model) is None
    _, out = talk(monkeypatch, capsys, Config(model=str(folder)), "/task", "/task tata", "ACGT")
    assert "  tata: TATA box detection, dna" in out and "pasted sequence (4 letters)" in out
    _, out = talk(monkeypatch, capsys, Config(model=model), "/task")
    assert "no tasks are known; expected task files. Start with --tasks" in out
    runtime.write_json(folder / "manifest.json", {**facts, "config": {"instructions": str(tmp_path / "gone")}})
    assert tuned_on(str(folder)) is None
