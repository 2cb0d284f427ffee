"""Splice gene pieces behind a tiktoken rank file (LLaMA-3), and run it in transformers exactly as tiktoken runs it.

In a tiktoken file rank, id and priority are one number. With n base ranks (128,000) the 256 special tokens hold n ... n + 255, so
new ranks start at n + 256 and no id changes its meaning; tiktoken accepts the gap, as the specials fill it. A converter that
counts specials from the vocabulary's *size* moves <|begin_of_text|> onto a gene piece without an error (transformers'
TikTokenConverter and Meta's loader do), so the tokenizer.json is built here, and its BPE vocabulary holds the specials too.

Bytes are written in the tokenizer.json as GPT-2's 256 printable characters; ASCII letters stand for themselves.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene.errors import InputError
from llama_gene.runtime import whole_file
from llama_gene.tokenization.bpe import merge_list
from llama_gene.tokenization.sentencepiece_splice import check_new_pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NUM_SPECIALS = 256
LLAMA3_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_SPECIALS = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
    "<|eot_id|>", "<|python_tag|>", *(f"<|reserved_special_token_{number}|>" for number in range(3, 248)),
)  # fmt: skip
BOS, EOS = LLAMA3_SPECIALS[:2]


class TiktokenVocabulary:
    """A tiktoken rank file with LLaMA-3's pattern and specials; see `bpe.Vocabulary` for what each method means."""

    kind = "tiktoken"

    def __init__(self, ranks: dict[bytes, int], specials: Sequence[str] = LLAMA3_SPECIALS) -> None:
        self.ranks = ranks
        """Bytes -> rank, in order of rank: 0 ... n - 1, then (if spliced) n + 256 and on."""
        self.specials = tuple(specials)
        self.num_base = next((place for place, rank in enumerate(ranks.values()) if place != rank), len(ranks))

    @classmethod
    def read(cls, path: Path, specials: Sequence[str] = LLAMA3_SPECIALS) -> TiktokenVocabulary:
        """Read a rank file (base64 bytes, a space and the rank on each line). Raises InputError with the line at fault.

        Never through tiktoken's own loader, which caches local files by path and would return what the file held before.
        """
        ranks: dict[bytes, int] = {}
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            if not line.strip():
                continue
            try:
                encoded, rank = line.split()
                piece = base64.b64decode(encoded, validate=True)
                ranks[piece] = int(rank)
            except (ValueError, binascii.Error) as error:
                raise InputError(f"{path}, line {number}: not a rank", "base64 and a number", "Copy or download the file again") from error
        vocabulary = cls(ranks, specials)
        values, num_base = list(ranks.values()), vocabulary.num_base
        expected = [*range(num_base), *range(num_base + NUM_SPECIALS, len(ranks) + NUM_SPECIALS)]
        single_bytes = sum(bytes([value]) in ranks for value in range(256))
        if single_bytes < 256 or values[: len(ranks)] != expected[: len(ranks)]:
            raise InputError(
                f"{path} holds {len(ranks):,} ranks and {single_bytes} of 256 bytes",
                "all bytes, and ranks that count up from 0 with at most one gap of 256 for the specials",
                "Copy or download the file again",
            )
        return vocabulary

    @property
    def num_ids(self) -> int:
        return len(self.ranks) + NUM_SPECIALS

    @cached_property
    def _text_ranks(self) -> dict[str, int]:
        """The ranks by their printable form: ASCII letters as themselves, every other byte as GPT-2 writes it."""
        letters = byte_characters()
        return {"".join(letters[byte] for byte in piece): rank for piece, rank in self.ranks.items()}

    @cached_property
    def _special_ids(self) -> dict[str, int]:
        return {name: self.num_base + offset for offset, name in enumerate(self.specials)}

    def pieces(self) -> dict[str, int]:
        return self._text_ranks

    def ids(self) -> dict[str, int]:
        return {**self._text_ranks, **self._special_ids}

    def rank(self, left: str, right: str) -> float | None:
        return self._text_ranks.get(left + right)

    @cached_property
    def _encoding(self) -> Any:
        import tiktoken

        return tiktoken.Encoding("base", pat_str=LLAMA3_PATTERN, mergeable_ranks=self.ranks, special_tokens=self._special_ids)

    def segment(self, words: list[str]) -> list[list[str]]:
        names = {rank: piece for piece, rank in self._text_ranks.items()}
        return [[names[number] for number in ids] for ids in self._encoding.encode_ordinary_batch(words, num_threads=1)]

    def native_encode(self, texts: list[str]) -> list[list[int]] | None:
        ids: list[list[int]] = self._encoding.encode_ordinary_batch(texts, num_threads=1)
        return ids

    def append(self, pieces: Sequence[str]) -> TiktokenVocabulary:
        check_new_pieces(pieces, self.ids())
        first = self.num_ids
        new = {piece.encode(): first + offset for offset, piece in enumerate(pieces)}
        return TiktokenVocabulary({**self.ranks, **new}, self.specials)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        ranks = self._text_ranks
        vocab = self.ids()  # specials inside: added ones are otherwise numbered from the vocabulary's size
        backend: Any = Tokenizer(models.BPE(vocab=vocab, merges=merge_list(ranks, ranks), ignore_merges=True))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(LLAMA3_PATTERN), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in self.specials])
        bos, eos = self.specials[:2]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, self._special_ids[bos])]
        )
        return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos, clean_up_tokenization_spaces=False)

    def write_native(self, folder: Path) -> None:
        with whole_file(folder / "tokenizer.model") as temporary, temporary.open("wb") as handle:
            handle.writelines(b"%s %d\n" % (base64.b64encode(piece), rank) for piece, rank in self.ranks.items())


def is_rank_file(path: Path) -> bool:
    """Return whether a file's first line is base64 and a number, as tiktoken writes it."""
    with path.open("rb") as handle:
        parts = handle.readline(4096).split()
    try:
        return len(parts) == 2 and parts[1].isdigit() and bool(base64.b64decode(parts[0], validate=True))
    except binascii.Error:
        return False


def byte_characters() -> dict[int, str]:
    """Return GPT-2's printable character for each byte: itself where it is printable, else one from U+0100 on.

    >>> byte_characters()[ord("A")], byte_characters()[ord(" ")]
    ('A', 'Ġ')
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(printable))
    return letters
