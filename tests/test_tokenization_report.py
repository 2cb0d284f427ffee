"""report: numbers of a splice on held-out texts, checked where they are known by construction."""

from __future__ import annotations

import json
from pathlib import Path

from llama_gene.tokenization.bpe import reference_encode
from llama_gene.tokenization.report import markdown, report, write_report
from llama_gene.tokenization.tokenizer import open_vocabulary, vocabulary_fingerprint, write_tokenizer
from tests.fixtures.tiny_vocabularies import ENGLISH, genes, proteins, spliced


def test_law_04_english_drift_is_reported() -> None:
    for kind in ("sentencepiece", "tiktoken"):
        splice = spliced(kind)
        base = splice.folder.parent / "base.model"
        piece = splice.protein_pieces[0]
        assert splice.base.segment([piece]) != [[piece]]
        numbers = report(splice.folder, base, english=["The cell copies its partner.\nit is so", f"An acronym ({piece})."])
        assert (numbers["english_lines"], numbers["english_lines_changed"]) == (3, 1)
        assert numbers["english_tokens_changed"] == len(splice.base.segment([piece])[0])


def test_gene_numbers_are_those_of_the_texts() -> None:
    splice = spliced("tiktoken")
    dna, protein = genes(30, seed=31), proteins(30, seed=32)
    numbers = report(splice.folder, splice.folder.parent / "base.model", dna, protein, ENGLISH)
    encoded = splice.full.native_encode(dna)
    assert encoded is not None
    assert numbers["bases_per_token"] == sum(map(len, dna)) / sum(map(len, encoded)) > 1.2 * numbers["bases_per_token_base"]
    assert numbers["residues_per_token"] > numbers["residues_per_token_base"]
    assert (numbers["pieces"], numbers["unreachable"], numbers["duplicates"], numbers["base_ids_changed"]) == (300, 0, 0, 0)
    assert (numbers["roundtrip_failures"], numbers["library_mismatches"]) == (0, 0)
    assert 0 < numbers["dead"] < 300  # nothing holds a run of 64 N here
    assert sum(numbers["piece_lengths"].values()) == 300 and numbers["piece_lengths"]["64"] == 1


def test_what_has_no_text_is_none() -> None:
    splice = spliced("sentencepiece")
    numbers = report(splice.folder, splice.folder.parent / "base.model")
    empty = ("dead", "bases_per_token", "residues_per_token", "english_lines", "english_lines_changed", "roundtrip_failures")
    assert [numbers[key] for key in empty] == [None] * 6 and numbers["unreachable"] == 0
    assert "not measured" in markdown(numbers)


def test_unreachable_pieces_are_counted(tmp_path: Path) -> None:
    """A list without its lower merges, as an appended foreign list has: GATTACA without GATT and ACA."""
    splice = spliced("tiktoken")
    bad = splice.base.append(["GATTACAGATTACA"])
    assert reference_encode("GATTACAGATTACA", bad.rank) != ["GATTACAGATTACA"]
    write_tokenizer(bad.tokenizer(), tmp_path)
    bad.write_native(tmp_path)
    assert report(tmp_path, splice.folder.parent / "base.model")["unreachable"] == 1


def test_the_report_is_json_markdown_and_a_figure_and_the_same_twice(tmp_path: Path) -> None:
    splice = spliced("tiktoken")
    numbers = report(splice.folder, splice.folder.parent / "base.model", dna=genes(3))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_report(numbers, tmp_path / name)
    assert json.loads((tmp_path / "a" / "report.json").read_text()) == numbers
    assert numbers["fingerprint"] == vocabulary_fingerprint(open_vocabulary(splice.folder).tokenizer())
    for name in ("report.json", "report.md", "piece_lengths.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
