"""standalone: the SentencePiece base, DNAHLM's dictionary and the papers' stand-alone vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gene.errors import InputError
from llama_gene.tokenization.pieces import read_pieces
from llama_gene.tokenization.standalone import train_paper, train_sentencepiece_base, train_unified
from llama_gene.tokenization.tokenizer import decode, encode_text, open_vocabulary
from tests.fixtures.tiny_vocabularies import ENGLISH, SENTENCES, genes, proteins


def test_sentencepiece_base_has_llama_ids_and_loses_no_long_line(tmp_path: Path) -> None:
    long_line = "word " * 5000 + "ZEBRAQUAGGA"
    train_sentencepiece_base([*ENGLISH, *SENTENCES, long_line + "\u2585xylophone\x00end"], 420, tmp_path / "a.model")
    train_sentencepiece_base([*ENGLISH, *SENTENCES, long_line + "\u2585xylophone\x00end"], 420, tmp_path / "b.model")
    assert (tmp_path / "a.model").read_bytes() == (tmp_path / "b.model").read_bytes()
    base = open_vocabulary(tmp_path / "a.model")
    ids = base.ids()
    assert base.num_ids == 420 and (ids["<unk>"], ids["<s>"], ids["</s>"], ids["<0x00>"], ids["<0xFF>"]) == (0, 1, 2, 3, 258)
    assert "\u2581word" in ids  # the word occurs in the long line only


@pytest.mark.parametrize(("size", "message"), [(200, "does not hold 3 specials, 256 bytes"), (50_000, "a size of at most")])
def test_sentencepiece_base_of_an_impossible_size_is_refused(tmp_path: Path, size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_sentencepiece_base(ENGLISH, size, tmp_path / "base.model")
    assert list(tmp_path.iterdir()) == []


def test_empty_base_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="texts are empty"):
        train_sentencepiece_base(["", "\n"], 400, tmp_path / "base.model")
    with pytest.raises(InputError, match="texts are empty"):
        train_unified([], 400)


def test_unified_dictionary_reads_dna_and_english() -> None:
    tokenizer = train_unified([*genes(40), *ENGLISH, *SENTENCES], 500)
    assert len(tokenizer) == 500 and tokenizer.eos_token_id == tokenizer.bos_token_id == 0
    for text in ("ACGTTTGA", "The gene binds.", "<|endoftext|>", "é\n"):
        assert decode(tokenizer, encode_text(tokenizer, text)) == text
    assert len(encode_text(tokenizer, genes(1)[0])) < len(genes(1)[0]) / 2
    with pytest.raises(InputError, match="the texts give"):
        train_unified(["ACGT"], 5000)


def test_the_papers_vocabulary_loses_no_long_line_and_no_rare_letter(tmp_path: Path) -> None:
    long_line = "MKVLAAGIVGL" * 1000 + "WWCWWCWWC" + "XUO"
    assert train_paper([*proteins(60), long_line], 120, tmp_path / "gene.model") == 60 + 3
    assert {"X", "U", "O"} <= set(read_pieces(tmp_path / "gene.model").pieces)


def test_the_papers_vocabulary_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no letters"):
        train_paper(["", " "], 100, tmp_path / "gene.model")
    with pytest.raises(InputError, match="a size of at most"):
        train_paper(["ACGT" * 30], 5000, tmp_path / "gene.model")
    assert list(tmp_path.iterdir()) == []
