"""Chat with an index: what stands in the prompts, what is shown under an answer, and that nothing gives way but neighbours."""

from __future__ import annotations

import builtins
import random
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llama_gene.data.askable import AskedRow, read_askable_tasks
from llama_gene.data.evidence import EvidenceChoice, EvidenceSource
from llama_gene.data.evidence_index import open_index
from llama_gene.data.instructions import read_examples
from llama_gene.data.prompts import encode_prompt, render_user
from llama_gene.errors import ConfigError, InputError
from llama_gene.inference import ask as asking
from llama_gene.inference.chat_session import Conversation
from llama_gene.models.adapters import load_model
from llama_gene.recipes import index, instruct
from llama_gene.recipes.chat import Config, run
from llama_gene.web.questions import Questions, table_of
from tests.tiny_models import save_adapter, tiny_gpt2, tiny_tokenizer

RNG = random.Random(0)
GENES = ["".join(RNG.choices("ACGT", k=60)) for _ in range(6)]
TASK = "family: classification\nstrand: sense\nlabels: {0: Non-promoter, 1: promoter}\ntrain: train.csv\ntest: test.csv\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter, two tasks, and an index of three genes, the first of them twice."""
    folder = tmp_path_factory.mktemp("chat_evidence")
    save_adapter(folder)
    known = [("g0", GENES[0]), ("g0copy", GENES[0]), ("g1", GENES[1])]
    (folder / "known.fa").write_text("".join(f">{name} promoter of {name}\n{gene}\n" for name, gene in known))
    index.run(index.Config([str(folder / "known.fa")], kind="dna", output_dir=folder / "index"))
    for split, genes in (("train", GENES[2:]), ("test", GENES[:2])):
        (folder / f"{split}.csv").write_text("sequence,label\n" + "".join(f"{gene},{i % 2}\n" for i, gene in enumerate(genes)))
    (folder / "core.yaml").write_text(f"name: core\ntitle: promoter detection\n{TASK}")
    (folder / "fold.yaml").write_text(f"name: fold\ntitle: fold\nkinds: [protein]\n{TASK.replace('strand: sense', '')}")
    return folder


def config_of(place: Path, **changes: Any) -> Config:
    return Config(model=str(place / "adapter"), evidence=place / "index", max_new_tokens=4, **changes)


def talk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], config: Config, *lines: str) -> str:
    """Type lines; return what was printed behind the help."""
    waiting: Iterator[str] = iter([*lines, "/quit"])
    monkeypatch.setattr(builtins, "input", lambda prompt="": next(waiting))
    run(config)
    return capsys.readouterr().out.split("Ctrl-C stops an answer.\n", 1)[1]


CITED = "Nearest annotated sequences:\n  1. g0 (100 % identity over 60 bases)\n  2. g0copy (100 % identity over 60 bases)\n"


def test_a_question_about_a_sequence_shows_what_its_prompt_cites(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = f"What is it?\n>x\n{GENES[0]}"
    run(config_of(place, question=[question, "What is a gene?", f"And this?\n>y\n{GENES[3]}"]))
    first, plain, unknown = capsys.readouterr().out.split("\n> ")
    assert first.endswith(CITED.rstrip()) or CITED in first + "\n"
    assert "Nearest" not in plain and "Nearest annotated sequences: none" in unknown
    run(config_of(place, question=question, evidence_max_identity=0.9))
    assert "Nearest annotated sequences: none" in capsys.readouterr().out
    run(config_of(place, question=question, evidence_hits=1))
    assert "g0copy" not in capsys.readouterr().out


def test_a_tasks_prompt_with_evidence_is_the_one_that_instruct_writes(place: Path, tmp_path: Path) -> None:
    folder = instruct.run(instruct.Config([place / "core.yaml"], tmp_path / "with", evidence=place / "index"))
    row = next(row for row in read_examples(folder / "test.jsonl") if row["evidence"])
    model, tokenizer = load_model(str(place / "adapter"))
    task = read_askable_tasks([place / "core.yaml"]).get("core")
    source = EvidenceSource(open_index(place / "index"))
    [asked] = asking.with_citations(model, tokenizer, task, [AskedRow("x", tuple(row["sequences"]))], source)
    [prompt], _ = asking.encode_questions(tokenizer, task, [asked])
    assert prompt == encode_prompt(tokenizer, render_user(row["instruction"], row["input"]))
    [answer], [plain] = (asking.ask(model, tokenizer, task, [one]) for one in (asked, replace(asked, cited=None)))
    assert answer.as_dict()["evidence"] == row["evidence"] and "evidence" not in plain.as_dict()
    assert answer.probabilities != plain.probabilities
    assert table_of(Questions(task), {1: answer})[1][0][-1] == "; ".join(f"cites {words}" for words in row["evidence"])


def test_a_tasks_answers_in_the_terminal_have_their_citations_below(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(place, tasks=[place / "core.yaml", place / "fold.yaml"])
    out = talk(
        monkeypatch, capsys, config, "/task core", GENES[0], GENES[3], "/task fold", "MKVLA", "/task off", f">z\n{GENES[1]}", "", "So?"
    )
    core, fold = out.split("[fold: ")
    assert core.count("pasted sequence (60 letters)") == 2 and core.count(CITED) == 1 and core.count("sequences: none\n") == 1
    fold, free = fold.split("[no task")
    assert "[the index holds dna: this task is asked without evidence]" in fold and "Nearest" not in fold
    assert "  1. g1 (100 % identity over 60 bases)" in free


def test_neighbours_give_way_to_the_question_and_their_number_is_said(place: Path) -> None:
    source = EvidenceSource(open_index(place / "index"), EvidenceChoice(3))
    question = f"What is it?\n>x\n{GENES[0]}"
    tokenizer = tiny_tokenizer()
    whole = Conversation(tiny_gpt2(context=1024), tokenizer, max_new_tokens=4, evidence=source)
    whole.ask(question)
    needed = len(encode_prompt(tokenizer, whole.history[0][0])) + 4
    for context, said in ((needed, 2), (needed - 1, 1)):
        small = Conversation(tiny_gpt2(context=context), tokenizer, max_new_tokens=4, evidence=source)
        small.ask(question)
        assert len(small.cited.neighbours) == said and small.cited.num_found == 2
    assert small.cited.render().startswith("Nearest annotated sequences (1 of 2 fit):\n  1. g0 (")
    bare = len(encode_prompt(tokenizer, render_user("What is it?", GENES[0]))) + 4
    tight = Conversation(tiny_gpt2(context=bare), tokenizer, max_new_tokens=4, evidence=source)
    tight.ask(question)
    assert tight.cited.render() == "Nearest annotated sequences (0 of 2 fit)" and "Nearest" not in tight.history[0][0]
    with pytest.raises(InputError, match="at most the model's"):
        tight.ask(question)  # what was said before is in the way, and it is never cut


def test_a_tasks_question_that_fits_fits_with_its_citations(place: Path) -> None:
    source, tokenizer = EvidenceSource(open_index(place / "index")), tiny_tokenizer()
    task, plain = read_askable_tasks([place / "core.yaml"]).get("core"), AskedRow("x", (GENES[0],))
    [prompt], labels = asking.encode_questions(tokenizer, task, [plain])
    for room, said in ((0, 0), (40, 0), (130, 1), (300, 2)):
        model = tiny_gpt2(context=len(prompt) + max(map(len, labels)) + room)
        [row] = asking.with_citations(model, tokenizer, task, [plain], source)
        assert row.cited is not None and (len(row.cited.neighbours), row.cited.num_found) == (said, 2)
        asking.check_room_for(model, tokenizer, task, [row])


def test_what_cannot_be_is_refused_before_the_model_loads(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="evidence and instructions are both given"):
        run(Config(model="nowhere", evidence=place / "index", instructions=tmp_path))
    with pytest.raises(ConfigError, match="0 neighbours"):
        run(Config(model="nowhere", evidence=place / "index", evidence_hits=0))
    with pytest.raises(InputError, match="manifest"):
        run(Config(model="nowhere", evidence=tmp_path))


@pytest.mark.skipif(find_spec("gradio") is None, reason="the extra `web` (gradio) is not installed")
def test_the_page_lists_citations_under_answers_as_text(place: Path, tmp_path: Path) -> None:
    from llama_gene.web.chat_page import ChatPage, PageModel, Visit

    model, tokenizer = load_model(str(place / "adapter"))
    (tmp_path / "evil.fa").write_text(f">g<b> promoter\n{GENES[0]}\n")
    index.run(index.Config([str(tmp_path / "evil.fa")], kind="dna", output_dir=tmp_path / "index"))
    asked = PageModel(model, tokenizer, "tiny", max_new_tokens=4, evidence=EvidenceSource(open_index(tmp_path / "index")))
    page = ChatPage(asked, read_askable_tasks([place / "core.yaml"]), tmp_path, 10)
    *_, (status, _, _, _, _, _, answers) = page.answer("core", f">x\n{GENES[0]}", None, Visit())
    assert "1 answered" in status
    drawn = page.pick(answers, 1)[1]
    assert "<li>1. g&lt;b&gt; (100 % identity over 60 bases)</li>" in drawn and "60 letters in" in drawn
    *_, (turns, _, _, history) = page.say(f"What?\n>x\n{GENES[0]}", [], [], Visit())
    assert turns[-1]["content"].endswith("Nearest annotated sequences:\n  1. g&lt;b&gt; (100 % identity over 60 bases)")
    assert "1. g<b> (100 %" in history[0][0] and "Nearest" not in history[0][1]
