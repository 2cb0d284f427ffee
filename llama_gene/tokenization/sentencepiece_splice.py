"""Splice gene pieces behind a SentencePiece BPE (LLaMA-2), and run it in transformers exactly as sentencepiece runs it.

A SentencePiece BPE merges by *score*, the highest first, leftmost on ties. New pieces get scores below the lowest ordinary base
score, strictly decreasing with id, so no base merge ever loses to a new one and sorting by score or by id says the same.
LLaMA-2 holds 16 multi-space pieces at -1e9: "one less than the minimum" would start there, where float32 steps are 64 wide and
all scores collapse to ties; they are left out of the minimum.

The tokenizer.json is built here, never converted: transformers orders merges by id, which is already wrong for LLaMA-2's own
double spaces. Ours: merges by (-score, id), the dummy prefix always, as sentencepiece does, also before a leading space.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_gene.errors import InputError
from llama_gene.runtime import whole_file
from llama_gene.tokenization.bpe import SPACE_MARK, merge_list

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # ModelProto.SentencePiece.Type
BPE_MODEL = 2  # TrainerSpec.ModelType
SPACE_SCORE = -1e8  # scores at or below it mark LLaMA-2's multi-space pieces, not a place in the order


class SentencePieceVocabulary:
    """A SentencePiece BPE model; see `bpe.Vocabulary` for what each method means."""

    kind = "sentencepiece"

    def __init__(self, proto: Any) -> None:
        self.proto = proto
        self._scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == NORMAL}

    @classmethod
    def read(cls, path: Path) -> SentencePieceVocabulary:
        """Read a `tokenizer.model`. Raises InputError where it is not a SentencePiece BPE that we can run faithfully."""
        from google.protobuf.message import DecodeError
        from sentencepiece import sentencepiece_model_pb2

        proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
        try:
            proto.ParseFromString(path.read_bytes())
        except DecodeError as error:
            raise InputError(f"{path} is not a whole SentencePiece model", "a tokenizer.model", "Copy or download it again") from error
        _check(proto, str(path))
        return cls(proto)

    @property
    def num_ids(self) -> int:
        return len(self.proto.pieces)

    def pieces(self) -> dict[str, int]:
        return {piece.piece: number for number, piece in enumerate(self.proto.pieces) if piece.type == NORMAL}

    def ids(self) -> dict[str, int]:
        return {piece.piece: number for number, piece in enumerate(self.proto.pieces)}

    def rank(self, left: str, right: str) -> float | None:
        score = self._scores.get(left + right)
        return None if score is None else -score

    @cached_property
    def _processor(self) -> Any:
        return _processor(self.proto)

    @cached_property
    def _word_processor(self) -> Any:
        inside = type(self.proto)()
        inside.CopyFrom(self.proto)
        inside.normalizer_spec.add_dummy_prefix = False
        return _processor(inside)

    def segment(self, words: list[str]) -> list[list[str]]:
        pieces: list[list[str]] = self._word_processor.encode(words, out_type=str, num_threads=1)
        return pieces

    def native_encode(self, texts: list[str]) -> list[list[int]] | None:
        ids: list[list[int]] = self._processor.encode(texts, out_type=int, num_threads=1)
        return ids

    def append(self, pieces: Sequence[str]) -> SentencePieceVocabulary:
        check_new_pieces(pieces, self.ids())
        proto = type(self.proto)()
        proto.CopyFrom(self.proto)
        lowest = min((score for score in self._scores.values() if score > SPACE_SCORE), default=0.0)
        for offset, piece in enumerate(pieces, start=1):
            proto.pieces.add(piece=piece, score=math.floor(lowest) - offset, type=NORMAL)
        scores = np.array([lowest, *(piece.score for piece in proto.pieces[self.num_ids :])], dtype=np.float32)
        if not (np.diff(scores) < 0).all():
            raise InputError(f"the base's lowest score {lowest} leaves no room in float32", "scores above -16,000,000", "Use another base")
        proto.trainer_spec.vocab_size = len(proto.pieces)
        return SentencePieceVocabulary(proto)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
        from transformers import PreTrainedTokenizerFast

        proto = self.proto
        vocab = self.ids()
        names = {kind: [piece.piece for piece in proto.pieces if piece.type == kind] for kind in (UNKNOWN, CONTROL)}
        unk = names[UNKNOWN][0]
        order = sorted(self._scores, key=lambda piece: (-self._scores[piece], vocab[piece]))
        backend: Any = Tokenizer(
            models.BPE(vocab=vocab, merges=merge_list(order, self._scores), unk_token=unk, fuse_unk=True, byte_fallback=_has_bytes(proto))
        )
        prefix = [normalizers.Prepend(SPACE_MARK)] if proto.normalizer_spec.add_dummy_prefix else []
        backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE_MARK)])
        strip = [decoders.Strip(" ", 1, 0)] if proto.normalizer_spec.add_dummy_prefix else []
        backend.decoder = decoders.Sequence([decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
        backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in (unk, *names[CONTROL])])
        bos_eos = (proto.trainer_spec.bos_id, proto.trainer_spec.eos_id)
        bos, eos = (proto.pieces[number].piece if number >= 0 else None for number in bos_eos)
        if bos is not None:
            backend.post_processor = processors.TemplateProcessing(
                single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocab[bos])]
            )
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token=bos, eos_token=eos, unk_token=unk, clean_up_tokenization_spaces=False
        )

    def write_native(self, folder: Path) -> None:
        with whole_file(folder / "tokenizer.model") as temporary:
            temporary.write_bytes(self.proto.SerializeToString(deterministic=True))


def check_new_pieces(pieces: Sequence[str], taken: Container[str]) -> None:
    """Raise InputError for a new piece that is taken, repeated, no run of ASCII letters, or spelled like a special token."""
    seen: set[str] = set()
    for piece in pieces:
        if piece.startswith("<") and piece.endswith(">"):
            raise InputError(f"the piece '{piece}' looks like a special token", "letters", "Remove it from the list")
        if not (piece.isascii() and piece.isalpha()):
            raise InputError(f"the piece '{piece}' is not a run of letters", "A-Z or a-z only, no space", "Remove it from the list")
        if piece in taken or piece in seen:
            where = "twice in the list" if piece in seen else "already in the base"
            raise InputError(f"the piece '{piece}' is {where}", "new pieces, each once", "Remove it from the list")
        seen.add(piece)


def _processor(proto: Any) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())


def _has_bytes(proto: Any) -> bool:
    return any(piece.type == BYTE for piece in proto.pieces)


def _check(proto: Any, where: str) -> None:
    """Refuse what our tokenizer.json would not run as sentencepiece does, rather than run it differently."""
    if not proto.pieces:
        raise InputError(f"{where} holds no pieces", "a SentencePiece BPE model", "Copy or download it again")
    other = {piece.type for piece in proto.pieces} - {NORMAL, UNKNOWN, CONTROL, BYTE}
    normalizer = proto.normalizer_spec
    if proto.trainer_spec.model_type != BPE_MODEL:
        problem = "is not a BPE (Unigram pieces are not merged)"
    elif other:
        problem = "holds user-defined or unused pieces"
    elif normalizer.precompiled_charsmap or normalizer.remove_extra_whitespaces or not normalizer.escape_whitespaces:
        problem = "normalizes its text"
    elif proto.trainer_spec.treat_whitespace_as_suffix:
        problem = "marks spaces behind words"
    elif not any(piece.type == UNKNOWN for piece in proto.pieces):
        problem = "has no unknown token"
    elif len({piece.piece for piece in proto.pieces}) < len(proto.pieces):
        problem = "holds a piece twice"
    else:
        return
    raise InputError(f"{where} {problem}", "a plain SentencePiece BPE as LLaMA-2's", "Use another base")
