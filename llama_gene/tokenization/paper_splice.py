"""The papers' own method, kept to be compared with: stand-alone pieces appended as they are (LLaMA-Gene 2.3.1, DNAHLM 2.2).

Each ordinary piece of a stand-alone SentencePiece vocabulary that the base lacks is appended with its own score. LLaMA-2 with the
papers' 60,000 gene pieces gives their published tokenizer, all 59,643 appended pieces in order and score. Pieces that the base has
already keep their low base score, so the merges that build on them never happen: 20 % of the appended pieces are unreachable, and DNA
takes 1.5 times the tokens of a stand-alone vocabulary. Behind LLaMA-3 the papers have no recipe; a rank is the priority there, and 27 %
are unreachable. Use `continued` for anything but this comparison.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_gene.errors import InputError, MissingFileError
from llama_gene.tokenization.bpe import SPACE_MARK, Vocabulary
from llama_gene.tokenization.pieces import Pieces
from llama_gene.tokenization.sentencepiece_splice import NORMAL, SentencePieceVocabulary
from llama_gene.tokenization.tiktoken_splice import TiktokenVocabulary


def append_as_the_papers(vocabulary: Vocabulary, given: Pieces, where: Path) -> tuple[Vocabulary, int]:
    """Return the vocabulary with the pieces that it lacks behind it, and their number. Raises InputError for a base of another format."""
    if given.scores is None:
        raise InputError(f"{where} holds no SentencePiece scores", "pieces trained with --method paper, or a SentencePiece .model")
    known = vocabulary.ids()
    if isinstance(vocabulary, SentencePieceVocabulary):
        proto = type(vocabulary.proto)()
        proto.CopyFrom(vocabulary.proto)
        for piece, score in zip(given.pieces, given.scores, strict=True):
            if piece not in known:
                proto.pieces.add(piece=piece, score=score, type=NORMAL)
        proto.trainer_spec.vocab_size = len(proto.pieces)
        return SentencePieceVocabulary(proto), len(proto.pieces) - vocabulary.num_ids
    if isinstance(vocabulary, TiktokenVocabulary):
        spelled = (piece.replace(SPACE_MARK, " ").encode() for piece in given.pieces)
        new = [piece for piece in dict.fromkeys(spelled) if piece not in vocabulary.ranks]
        return vocabulary.with_ranks(new), len(new)
    raise InputError(f"a {vocabulary.kind} base", "SentencePiece or tiktoken for --method paper", "Use --method continued")


def read_scored_pieces(path: Path, facts: dict[str, Any]) -> Pieces:
    """Return the ordinary pieces and scores of a SentencePiece model of any type. Raises InputError for a broken file."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    if not path.is_file():
        raise MissingFileError(path, "a SentencePiece .model")
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise InputError(f"{path} is not a whole SentencePiece model", "a .model file", "Copy it again") from error
    ordinary = [piece for piece in proto.pieces if piece.type == NORMAL]
    if not ordinary:
        raise InputError(f"{path} holds no pieces", "a SentencePiece .model file", "Copy it again")
    return Pieces([piece.piece for piece in ordinary], [], [piece.score for piece in ordinary], facts)
