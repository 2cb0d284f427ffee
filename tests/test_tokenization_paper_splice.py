"""paper_splice: the papers' own method, whose published file it reproduces and whose faults the report finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gene.errors import InputError
from llama_gene.tokenization.bpe import reference_encode
from llama_gene.tokenization.paper_splice import append_as_the_papers
from llama_gene.tokenization.pieces import Pieces, read_pieces
from llama_gene.tokenization.sentencepiece_splice import SentencePieceVocabulary
from llama_gene.tokenization.standalone import train_paper
from llama_gene.tokenization.tiktoken_splice import TiktokenVocabulary
from llama_gene.tokenization.tokenizer import open_vocabulary
from tests.fixtures.letters import LettersVocabulary
from tests.fixtures.tiny_vocabularies import DATA, genes, needs_data, spliced

HERE = Path("gene.model")


@needs_data
@pytest.mark.real_data
def test_llama_2_and_the_papers_pieces_give_the_papers_tokenizer() -> None:
    tokenizers = Path(str(DATA)) / "tokenizers"
    base = open_vocabulary(tokenizers / "llama2/tokenizer.model")
    given = read_pieces(tokenizers / "gene_bpe_unigram/gene_bpe_seg.model")
    full, num_new = append_as_the_papers(base, given, HERE)
    theirs = SentencePieceVocabulary.read(tokenizers / "gene_eng_merged/tokenizer.model")
    assert isinstance(full, SentencePieceVocabulary) and num_new == 59_643
    assert [(piece.piece, piece.score, piece.type) for piece in full.proto.pieces] == [
        (piece.piece, piece.score, piece.type) for piece in theirs.proto.pieces
    ]


@pytest.mark.parametrize("kind", ["sentencepiece", "tiktoken"])
def test_pieces_keep_order_and_scores_and_some_are_unreachable(kind: str, tmp_path: Path) -> None:
    base = spliced(kind).base
    train_paper(genes(100), 400, tmp_path / "gene.model")
    given = read_pieces(tmp_path / "gene.model")
    full, num_new = append_as_the_papers(base, given, HERE)
    assert full.num_ids == base.num_ids + num_new and 0 < num_new <= len(given.pieces)
    new = [piece for piece in full.pieces() if piece not in base.pieces()]
    spelled = [piece.replace("\u2581", "\u0120" if kind == "tiktoken" else "\u2581") for piece in given.pieces]
    assert new == [piece for piece in spelled if piece not in base.ids()]
    assert any(reference_encode(piece, full.rank) != [piece] for piece in new)
    assert isinstance(full, SentencePieceVocabulary | TiktokenVocabulary)


def test_other_bases_and_lists_without_scores_are_refused() -> None:
    with pytest.raises(InputError, match="SentencePiece or tiktoken"):
        append_as_the_papers(LettersVocabulary(), Pieces(["AC"], [], [0.0]), HERE)
    with pytest.raises(InputError, match="no SentencePiece scores"):
        append_as_the_papers(spliced("tiktoken").base, Pieces(["AC"]), HERE)
