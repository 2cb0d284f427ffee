"""english: the strings that strict mode forbids, and that forbidding them leaves English as it is."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from llama_gene.tokenization.continued import train_continued_pieces
from llama_gene.tokenization.english import encode_lines, forbidden_strings, without_gene_spans
from tests.fixtures.tiny_vocabularies import only_dna_letters, proteins, spliced

ACRONYMS = ["HIV and GALT, the MALT of a KRAB-like WD40; MLLT3, SNARE!", "PCR of LKB1, the MHC, a VLDL and an LDL.", "No capitals here."]


def test_gene_spans_are_runs_of_six_bases_or_fifteen_residues() -> None:
    assert without_gene_spans("the GATTACA of MKTAYIAKQRQISFVK, not the TATAA of KRAS") == "the  of , not the TATAA of KRAS"


@pytest.mark.parametrize("kind", ["sentencepiece", "tiktoken"])
def test_strings_are_those_of_two_adjacent_pieces_of_capitals(kind: str) -> None:
    base = spliced(kind).base
    strings = forbidden_strings(base, ["x HIVHIV y HIVHIV", "GATTACAGATTACA", "no Capitals"])
    pieces = base.segment(["HIVHIV"])[0]
    assert strings == {left + right: 2 * count for (left, right), count in Counter(pairwise(pieces)).items()}


@pytest.mark.parametrize("kind", ["sentencepiece", "tiktoken"])
def test_an_abbreviation_is_also_cut_by_itself(kind: str) -> None:
    base = spliced(kind).base.append(["ZQ"])
    assert "ZQX" in forbidden_strings(base, ["the ZQX-like"]) and base.segment(["ZQX"]) == [["ZQ", "X"]]


@pytest.mark.parametrize("kind", ["sentencepiece", "tiktoken"])
def test_law_04_strict_mode_changes_no_token_of_the_english_given(kind: str) -> None:
    base = spliced(kind).base
    lines = ACRONYMS * 2
    texts = [*proteins(100), *["HIVGALTMALTKRABMLLTSNAREPCRLKBMHCVLDL"] * 40]
    free = base.append(train_continued_pieces(base, texts, 150, forbid=only_dna_letters).pieces)
    strict = base.append(train_continued_pieces(base, texts, 150, forbid=only_dna_letters, forbidden=forbidden_strings(base, lines)).pieces)
    before = encode_lines(base, lines)
    assert encode_lines(free, lines) != before  # the fixture can fail
    assert encode_lines(strict, lines) == before
