"""Neighbours are found with the right identity, thresholds hold at their border, and a prompt never grows over its room."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llama_gene.data import evidence
from llama_gene.data.evidence import (
    Cited,
    EvidenceChoice,
    Neighbour,
    find_neighbours,
    prompt_fits,
    question_with_evidence,
    render_neighbours,
    with_evidence,
)
from llama_gene.data.evidence_index import EvidenceIndex, Source, open_index, write_index
from llama_gene.errors import ConfigError, InputError
from llama_gene.runtime import write_manifest
from llama_gene.sequences.alphabet import reverse_complement
from tests.tiny_models import tiny_tokenizer

LETTERS = {"dna": "ACGT", "protein": "ACDEFGHIKLMNPQRSTVWY"}


def draw(seed: int, kind: str, length: int) -> str:
    return "".join(random.Random(seed).choices(LETTERS[kind], k=length))


def mutant(text: str, number: int, kind: str = "protein") -> str:
    """Return a text with `number` letters substituted at drawn places; the ends stay, so that an alignment spans all of it."""
    letters, places = LETTERS[kind], set(random.Random(3).sample(range(10, len(text) - 10), number))
    step = len(letters) // 2
    return "".join(letters[(letters.index(x) + step) % len(letters)] if i in places else x for i, x in enumerate(text))


def make_index(folder: Path, kind: str, sources: dict[str, str], **settings: Any) -> EvidenceIndex:
    folder.mkdir()
    facts = write_index([Source(name, f"gene {name}", text) for name, text in sources.items()], folder, kind, **settings)
    write_manifest(folder, "index", None, **facts)
    return open_index(folder)


QUERY = draw(1, "protein", 200)


@pytest.fixture(scope="module")
def proteins(tmp_path_factory: pytest.TempPathFactory) -> EvidenceIndex:
    """A copy, mutants of 90, 80 and 60 %, the second half, and 60 strangers."""
    planted = {"half": QUERY[100:] + draw(2, "protein", 100), "m60": mutant(QUERY, 80), "m80": mutant(QUERY, 40), "m90": mutant(QUERY, 20)}
    strangers = {f"x{i}": draw(100 + i, "protein", 150 + i) for i in range(60)}
    return make_index(tmp_path_factory.mktemp("evidence") / "index", "protein", {**strangers, **planted, "copy": QUERY})


def test_planted_relatives_are_found_nearest_first_with_their_identity(proteins: EvidenceIndex) -> None:
    found = find_neighbours(proteins, QUERY, EvidenceChoice(max_hits=9))
    assert [(item.id, item.identity, item.length, item.coverage) for item in found] == [
        ("copy", 1.0, 200, 1.0),
        ("m90", 0.9, 200, 1.0),
        ("m80", 0.8, 200, 1.0),
        ("m60", 0.6, 200, 1.0),
        ("half", 1.0, 100, 0.5),
    ]
    assert found[0].text == "gene copy"
    assert [item.id for item in find_neighbours(proteins, QUERY.lower(), EvidenceChoice(max_hits=2))] == ["copy", "m90"]
    assert find_neighbours(proteins, draw(7, "protein", 200)) == []


def test_a_record_at_the_threshold_stays_and_one_above_it_is_passed_over(proteins: EvidenceIndex) -> None:
    def names(**choice: Any) -> list[str]:
        return [item.id for item in find_neighbours(proteins, QUERY, EvidenceChoice(max_hits=9, **choice))]

    assert names(max_identity=0.9) == ["m90", "m80", "m60"]  # the half is an exact stretch: identity 1
    assert names(max_identity=0.8999) == ["m80", "m60"]
    assert names(max_identity=0.6) == ["m60"] and names(max_identity=0.5999) == []
    assert names(min_identity=0.9) == ["copy", "m90", "half"] and names(min_coverage=0.51, min_identity=0.95) == ["copy"]
    assert [item.id for item in find_neighbours(proteins, QUERY, EvidenceChoice(max_hits=1), exclude=["copy", "m90"])] == ["m80"]


def test_a_shortlist_full_of_copies_hides_no_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = {f"c{i}": QUERY for i in range(20)}
    index = make_index(tmp_path / "index", "protein", {**copies, "m80": mutant(QUERY, 40)})
    monkeypatch.setattr(evidence, "SHORTLIST", 5)
    assert [item.id for item in find_neighbours(index, QUERY, EvidenceChoice(max_identity=0.9))] == ["m80"]
    assert [item.id for item in find_neighbours(index, QUERY)] == ["c0", "c1", "c2"]


def test_dna_is_found_on_both_strands_and_a_long_record_by_the_place(tmp_path: Path) -> None:
    gene, genome = draw(5, "dna", 300), draw(6, "dna", 60_000)
    sources = {"gene": gene, "genome": genome[:30_000] + mutant(gene, 30, "dna") + genome[30_000:], "other": draw(8, "dna", 400)}
    index = make_index(tmp_path / "index", "dna", sources, window=2000)
    for question, strand in ((gene, 1), (reverse_complement(gene, "dna"), -1)):
        found = find_neighbours(index, question)
        assert [(item.id, item.strand, item.identity, item.length) for item in found] == [
            ("gene", strand, 1.0, 300),
            ("genome", strand, 0.9, 300),
        ]
        assert found[1].start <= 30_000 and found[1].start + 2000 >= 30_300 and found[1].num_letters == 60_300
    assert "other strand" in evidence.cite(found[0], "dna")


def test_every_stretch_of_a_windowed_record_lies_in_some_window(tmp_path: Path) -> None:
    for length in (1000, 1001, 1799, 1800, 1801, 5000):
        index = make_index(tmp_path / str(length), "dna", {"g": draw(9, "dna", length)}, window=1000)
        spans = [(entry.start, entry.start + len(entry.sequence)) for entry in map(index.entry, range(index.num_entries))]
        assert spans[0][0] == 0 and spans[-1][1] == length
        assert all(two[0] == one[0] + 800 and one[1] == one[0] + 1000 for one, two in pairwise(spans))


def example(instruction: str, sequences: list[str], kind: str = "protein", **more: Any) -> Any:
    row = {"task": "t", "family": "function", "split": "test", "instruction": instruction, "input": "\n####\n".join(sequences)}
    row |= {"output": "lyase", "labels": ["lyase", "ligase"], "sequences": sequences, "kinds": [kind] * len(sequences), "group": ""}
    return {**row, "oracle": None, "value": None, **more}


def test_rows_get_their_neighbours_behind_the_instruction_and_keep_the_rest(proteins: EvidenceIndex) -> None:
    rows = [example("Which class?", [QUERY]), example("Which class?", ["MKVLA"]), example("Which class?", ["ACGT"], "dna")]
    made, counts = with_evidence(rows, proteins, EvidenceChoice(max_hits=2, max_identity=0.95))
    assert made[0]["instruction"] == (
        "Which class?\n\nNearest annotated sequences:\n"
        "1. m90 (90 % identity over 200 residues): gene m90\n"
        "2. m80 (80 % identity over 200 residues): gene m80"
    )
    assert made[0]["evidence"] == ["m90 (90 % identity over 200 residues)", "m80 (80 % identity over 200 residues)"]
    assert {key: value for key, value in made[0].items() if key not in ("instruction", "evidence")} == {
        key: value for key, value in rows[0].items() if key != "instruction"
    }
    assert made[1]["instruction"] == "Which class?\n\nNearest annotated sequences: none" and made[1]["evidence"] == []
    assert made[2] is rows[2]
    assert (counts.rows, counts.not_asked, counts.with_neighbours, counts.neighbours, counts.passed_over) == (3, 1, 1, 2, 2)
    with pytest.raises(InputError, match="has evidence already"):
        with_evidence(made[:1], proteins)


def test_both_members_of_a_pair_are_asked(proteins: EvidenceIndex) -> None:
    [made], _ = with_evidence([example("Do they interact?", [QUERY, draw(100, "protein", 150)])], proteins, EvidenceChoice(max_hits=1))
    assert made["instruction"] == (
        "Do they interact?\n\nNearest annotated sequences of the first sequence:\n1. copy (100 % identity over 200 residues): gene copy"
        "\n\nNearest annotated sequences of the second sequence:\n1. x0 (100 % identity over 150 residues): gene x0"
    )


def test_a_prompt_without_room_gets_fewer_neighbours_and_says_so(proteins: EvidenceIndex) -> None:
    tokenizer, row = tiny_tokenizer(), example("Which class?", [QUERY])
    fits_all = prompt_fits(tokenizer, 2000)
    [whole], counts = with_evidence([row], proteins, fits=fits_all)
    assert len(whole["evidence"]) == 3 and counts.rows_without_room == 0

    def length(one: Any) -> int:
        return next(size for size in range(300, 2000) if prompt_fits(tokenizer, size)(one))

    for limit in (length(whole) - 1, length(row), length(row) - 1):
        [made], counts = with_evidence([row], proteins, fits=prompt_fits(tokenizer, limit))
        num_given = len(made.get("evidence", []))
        assert num_given == (2 if limit > length(row) else 0) and counts.rows_without_room == 1
        assert counts.neighbours + counts.neighbours_without_room == 3 and counts.rows_left == (num_given == 0)
        assert prompt_fits(tokenizer, limit)(made) == (limit >= length(row))
    assert made is row  # it does not fit without evidence either: the evaluation rejects and counts it
    [made], _ = with_evidence([row], proteins, fits=prompt_fits(tokenizer, length(whole) - 1))
    assert "Nearest annotated sequences (2 of 3 fit):\n1. copy" in made["instruction"]


def test_long_texts_end_at_a_word_and_nothing_known_is_said() -> None:
    words = Neighbour("P1", "word " * 60, 0.999, 100, 1.0, 1, 0, 100)
    line = render_neighbours([words], "protein").splitlines()[1]
    assert line.startswith("1. P1 (99 % identity") and line.endswith("word ...") and len(line) < 260
    bare = Neighbour("P1", "", 0.29, 100, 1.0, 1, 0, 100)
    assert render_neighbours([bare], "protein").endswith("P1 (29 % identity over 100 residues): nothing is known")


def test_a_chat_question_gets_evidence_where_its_input_is_a_sequence(proteins: EvidenceIndex) -> None:
    instruction, cited = question_with_evidence("What is it?", QUERY, proteins, EvidenceChoice(max_hits=1))
    assert instruction.endswith("1. copy (100 % identity over 200 residues): gene copy")
    assert cited.neighbours == ("copy (100 % identity over 200 residues)",) and cited.num_found == 1
    assert question_with_evidence("What is a gene?", "", proteins) == ("What is a gene?", Cited())
    assert question_with_evidence("Read this.", "two words, 1 sign", proteins) == ("Read this.", Cited())


def test_senseless_choices_are_refused(proteins: EvidenceIndex) -> None:
    for changes, words in (({"max_hits": 0}, "0 neighbours"), ({"max_identity": 40}, "max_identity 40"), ({"min_coverage": -1}, "-1")):
        with pytest.raises(ConfigError, match=words):
            EvidenceChoice(**changes)
    with pytest.raises(InputError, match="100,001 letters"):
        find_neighbours(proteins, "A" * 100_001)
