"""The chat stage: one-shot questions, a conversation typed into a terminal, held-out questions, over-long ones."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_gene import runtime
from llama_gene.data.instructions import Example, write_examples
from llama_gene.errors import ConfigError, InputError
from llama_gene.inference.chat_session import Conversation, split_fasta
from llama_gene.recipes import chat
from llama_gene.recipes.chat import Config, run
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
