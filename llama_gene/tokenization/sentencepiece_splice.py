"""Splice gene pieces behind a SentencePiece BPE (LLaMA-2), and run it in transformers exactly as sentencepiece runs it.

A SentencePiece BPE merges by *score*, the highest first, leftmost on ties. New pieces get scores below the lowest ordinary base
score, strictly decreasing with id, so no base merge ever loses to a new one and sorting by score or by id says the same.
LLaMA-2 holds 16 multi-space pieces at -1e9: "one less than the minimum" would start there, where float32 steps are 64 wide and
all scores collapse to ties; they are left out of the minimum.

The tokenizer.json is built here, never converted: transformers orders merges by id, which is already wrong for LLaMA-2's own
double spaces. Ours: merges by (-score, id), the dummy prefix always, as sentencepiece does, also before a leading space.

A namespaced letter (`<3di:a>`) is a user-defined piece here. In transformers an added token would give the text behind it a second
dummy prefix; so the tokenizer.json reads the token as one private-use character (planes 15 and 16, given by the id), which no merge
touches, and writes it back when decoding. Such a character itself in a text would be read as the letter, as U+2581 is as a space.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_gene.errors import InputError
from llama_gene.runtime import whole_file
from llama_gene.sequences.alphabet import LETTER_TOKEN
from llama_gene.tokenization.bpe import SPACE_MARK, Vocabulary, merge_list

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # ModelProto.SentencePiece.Type
BPE_MODEL = 2  # TrainerSpec.ModelType
WORDS_A_BATCH = 64  # of 1,000 letters: 7.2 MB/s; 3,000 a batch leave the cache: 5.2 MB/s
PRIVATE_USE = (0xF0000, 0x100000)  # planes 15 and 16; LLaMA-2 has no piece there, as it has in U+E000
PLANE = 0xFFFE  # characters of each: the last two are none
SPACE_SCORE = -1e8  # scores at or below it mark LLaMA-2's multi-space pieces, not a place in the order


class SentencePieceVocabulary:
    """A SentencePiece BPE model; see `bpe.Vocabulary` for what each method means."""

    kind = "sentencepiece"
    pattern = None  # there is no pre-tokenizer

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
            raise InputError(
                f"{path} is neither a rank file nor a whole SentencePiece model",
                "a tokenizer.model of one of them",
                "Copy or download it again",
            ) from error
        try:
            _check(proto, str(path))
            vocabulary = cls(proto)
            _ = vocabulary._processor  # it has its own idea of what a whole model is
        except (RuntimeError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{path} is damaged ({reason})", "a whole SentencePiece model", "Copy or download it again") from error
        return vocabulary

    @property
    def num_ids(self) -> int:
        return len(self.proto.pieces)

    def pieces(self) -> dict[str, int]:
        return {piece.piece: number for number, piece in enumerate(self.proto.pieces) if piece.type == NORMAL}

    def piece_texts(self) -> dict[int, str]:
        return {number: piece.replace(SPACE_MARK, " ") for piece, number in self.pieces().items()}

    def ids(self) -> dict[str, int]:
        return {piece.piece: number for number, piece in enumerate(self.proto.pieces)}

    def letters(self) -> dict[str, int]:
        """Return the tokens of namespaced alphabets and their ids."""
        return {piece.piece: number for number, piece in enumerate(self.proto.pieces) if piece.type == USER_DEFINED}

    def ids_in_json(self) -> dict[str, int]:
        """Return `ids` as our tokenizer.json names them: a namespaced letter by its private-use character."""
        letters = self.letters()
        return {private_character(number) if piece in letters else piece: number for piece, number in self.ids().items()}

    def rank(self, left: str, right: str) -> float | None:
        score = self._scores.get(left + right)
        return None if score is None else -score

    @cached_property
    def _processor(self) -> Any:
        return _processor(self.proto)

    @cached_property
    def _word_processor(self) -> Any:
        inside = self._copy()
        inside.normalizer_spec.add_dummy_prefix = False
        return _processor(inside)

    def segment(self, words: list[str]) -> list[list[str]]:
        pieces: list[list[str]] = self._word_processor.encode(words, out_type=str, num_threads=1)
        return pieces

    def segment_ids(self, words: Sequence[str]) -> NDArray[np.int32]:
        batches = (list(words[start : start + WORDS_A_BATCH]) for start in range(0, len(words), WORDS_A_BATCH))
        return joined_ids(row for batch in batches for row in self._word_processor.encode(batch, out_type="numpy", num_threads=1))

    def native_encode(self, texts: list[str]) -> list[list[int]] | None:
        ids: list[list[int]] = self._processor.encode(texts, out_type=int, num_threads=1)
        return ids

    def append(self, pieces: Sequence[str]) -> SentencePieceVocabulary:
        check_new_pieces(pieces, self.ids())
        proto = self._copy()
        lowest = min((score for score in self._scores.values() if score > SPACE_SCORE), default=0.0)
        for offset, piece in enumerate(pieces, start=1):
            proto.pieces.add(piece=piece, score=math.floor(lowest) - offset, type=NORMAL)
        scores = np.array([lowest, *(piece.score for piece in proto.pieces[self.num_ids :])], dtype=np.float32)
        if not (np.diff(scores) < 0).all():
            raise InputError(f"the base's lowest score {lowest} leaves no room in float32", "scores above -16,000,000", "Use another base")
        proto.trainer_spec.vocab_size = len(proto.pieces)
        return SentencePieceVocabulary(proto)

    def append_letters(self, tokens: Sequence[str]) -> SentencePieceVocabulary:
        check_new_letters(tokens, self.ids())
        proto = self._copy()
        for number, token in enumerate(tokens, start=self.num_ids):
            if private_character(number) in self.ids_in_json():
                raise InputError(
                    f"the base has a piece U+{ord(private_character(number)):X}", f"none: it stands for '{token}'", "Use another base"
                )
            proto.pieces.add(piece=token, score=0.0, type=USER_DEFINED)
        proto.trainer_spec.vocab_size = len(proto.pieces)
        return SentencePieceVocabulary(proto)

    def isolated(self) -> Vocabulary:
        raise InputError(
            "SentencePiece has no pre-tokenizer that could cut gene runs out", "a tiktoken or Hugging Face BPE base", "Leave isolation out"
        )

    def _copy(self) -> Any:
        proto = type(self.proto)()
        proto.CopyFrom(self.proto)
        return proto

    def tokenizer(self) -> PreTrainedTokenizerFast:
        from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
        from transformers import PreTrainedTokenizerFast

        proto = self.proto
        vocab = self.ids_in_json()
        names = {kind: [piece.piece for piece in proto.pieces if piece.type == kind] for kind in (UNKNOWN, CONTROL)}
        unk = names[UNKNOWN][0]
        order = sorted(self._scores, key=lambda piece: (-self._scores[piece], vocab[piece]))
        backend: Any = Tokenizer(
            models.BPE(vocab=vocab, merges=merge_list(order, self._scores), unk_token=unk, fuse_unk=True, byte_fallback=_has_bytes(proto))
        )
        prefix = [normalizers.Prepend(SPACE_MARK)] if proto.normalizer_spec.add_dummy_prefix else []
        letters = {token: private_character(number) for token, number in self.letters().items()}
        read = [normalizers.Replace(token, character) for token, character in letters.items()]
        write = [decoders.Replace(character, token) for token, character in letters.items()]
        backend.normalizer = normalizers.Sequence([*read, *prefix, normalizers.Replace(" ", SPACE_MARK)])
        strip = [decoders.Strip(" ", 1, 0)] if proto.normalizer_spec.add_dummy_prefix else []
        backend.decoder = decoders.Sequence([decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse(), *write, *strip])
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


def private_character(number: int) -> str:
    """Return the private-use character that stands for a namespaced letter with this id: one a letter, as no two are 131,068 ids apart.

    >>> hex(ord(private_character(92_160)))
    '0x106802'
    """
    plane, place = divmod(number % (PLANE * len(PRIVATE_USE)), PLANE)
    return chr(PRIVATE_USE[plane] + place)


def joined_ids(rows: Iterable[Sequence[int] | NDArray[Any]]) -> NDArray[np.int32]:
    """Return rows of ids one behind the other, with -1 behind each.

    >>> joined_ids([[5, 6], [], [7]]).tolist()
    [5, 6, -1, -1, 7, -1]
    """
    end = np.array([-1], np.int32)
    parts = [part for row in rows for part in (np.asarray(row, np.int32), end)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)


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


def check_new_letters(tokens: Sequence[str], taken: Container[str]) -> None:
    """Raise InputError for a namespaced letter that is taken, repeated, or not of the form `<3di:a>`."""
    for place, token in enumerate(tokens):
        if not LETTER_TOKEN.fullmatch(token):
            raise InputError(f"the token '{token}' is no letter of a namespaced alphabet", "<namespace:letter> as <3di:a>")
        if token in taken or token in tokens[:place]:
            where = "already in the base" if token in taken else "twice in the list"
            raise InputError(f"the token '{token}' is {where}", "new letters, each once", "Add each alphabet once")


def _processor(proto: Any) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())


def _has_bytes(proto: Any) -> bool:
    return any(piece.type == BYTE for piece in proto.pieces)


def _check(proto: Any, where: str) -> None:
    """Refuse what our tokenizer.json would not run as sentencepiece does, rather than run it differently."""
    if not proto.pieces:
        raise InputError(f"{where} holds no pieces", "a SentencePiece BPE model", "Copy or download it again")
    ours = {NORMAL, UNKNOWN, CONTROL, BYTE}
    other = [piece for piece in proto.pieces if piece.type not in ours]
    normalizer = proto.normalizer_spec
    if proto.trainer_spec.model_type != BPE_MODEL:
        problem = "is not a BPE (Unigram pieces are not merged)"
    elif any(piece.type != USER_DEFINED or not LETTER_TOKEN.fullmatch(piece.piece) for piece in other):
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
