"""Splice gene pieces behind a base that has only a `tokenizer.json` of BPE type (GPT-2, Qwen, a dictionary of our own).

New pieces go into the model's vocabulary behind the highest id, added tokens included; their merges go behind all merges. The
base's own merges stay exactly as they are: its list names one split of a piece where a string rule would allow several, so
reachability is judged pair by pair here. What would need more than that (a normalizer that changes letters, a pre-tokenizer that
splits words, a model that is not BPE) is refused.

*Isolation* is a Split by gene runs before the base's own pre-tokenizer: it works before any (GPT-2's regular expression inside ByteLevel,
Gemma's split at spaces that its normalizer has taken away, a chain of Splits, none), and the text before a run encodes as it does alone.
A pre-tokenizer that tiktoken can run, too, gets tiktoken's single pattern: one base, the same ids from rank file and tokenizer.json.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene.errors import InputError
from llama_gene.sequences.alphabet import LETTER_TOKEN
from llama_gene.tokenization.bpe import SPACE_MARK, merge_list
from llama_gene.tokenization.sentencepiece_splice import WORDS_A_BATCH, check_new_letters, check_new_pieces, joined_ids
from llama_gene.tokenization.tiktoken_splice import RUN, byte_characters, isolating_pattern, single_pattern

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast

PROBE = "ACGTTGCANNMKTAYIAKQRQISFVK"  # a gene word: it must come through normalizer and pre-tokenizer in one piece


class JsonVocabulary:
    """A transformers tokenizer over a BPE `tokenizer.json`; see `bpe.Vocabulary` for what each method means."""

    kind = "bpe"

    def __init__(self, tokenizer: PreTrainedTokenizerFast, where: str) -> None:
        self.content: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
        """The tokenizer.json; never changed in place."""
        self._where = where
        self._names = {f"{name}_token": getattr(tokenizer, f"{name}_token") for name in ("bos", "eos", "unk", "pad")}
        self._tokenizer, self._backend = tokenizer, tokenizer.backend_tokenizer
        self._check()

    def _changed(self, **parts: Any) -> JsonVocabulary:
        """Return the vocabulary with some parts of the tokenizer.json replaced; its tokenizer is built when asked for (4 s at 262k ids)."""
        changed = copy(self)
        for name in ("num_ids", "_tokenizer", "_backend", "_merges"):
            changed.__dict__.pop(name, None)
        changed.content = {**self.content, **parts}
        return changed

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerFast:
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(tokenizer_object=self._backend, clean_up_tokenization_spaces=False, **self._names)

    @cached_property
    def _backend(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_str(json.dumps(self.content))

    @cached_property
    def _merges(self) -> dict[tuple[str, str], int]:
        return {self._pair(merge): place for place, merge in enumerate(self.content["model"]["merges"])}

    def _check(self) -> None:
        model = self.content["model"]
        added = {token["content"]: token["id"] for token in self.content["added_tokens"]}
        numbers = {**model.get("vocab", {}), **added}.values() if isinstance(model.get("vocab"), dict) else []
        if len(set(numbers)) < len(numbers):
            problem = "gives two tokens one id"
        elif model.get("type") != "BPE":
            problem = f"is a {model.get('type')} tokenizer"
        elif model.get("continuing_subword_prefix") or model.get("end_of_word_suffix") or model.get("dropout"):
            problem = "marks subwords or drops merges"
        else:
            words = self._words(PROBE)
            if len(words) == 1 and words[0].lstrip("\u2581\u0120") == PROBE:
                return
            problem = "changes or splits gene sequences before merging"
        raise InputError(f"{self._where} {problem}", "a plain BPE tokenizer.json", "Use a base with a SentencePiece or tiktoken model")

    def _words(self, text: str) -> list[str]:
        """Return what the model gets to merge of a text: normalized and split."""
        backend = self._backend
        text = backend.normalizer.normalize_str(text) if backend.normalizer else text
        return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)] if backend.pre_tokenizer else [text]

    @staticmethod
    def _pair(merge: str | list[str]) -> tuple[str, str]:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        return left, right

    @cached_property
    def num_ids(self) -> int:
        return 1 + max(self.ids().values())

    @property
    def pattern(self) -> str | None:
        """The pre-tokenizer: its regular expression where it has a single one, else its JSON, None where there is none."""
        parts = self.content["pre_tokenizer"]
        return single_pattern(parts) or (json.dumps(parts, ensure_ascii=False) if parts else None)

    def pieces(self) -> dict[str, int]:
        model = self.content["model"]
        others = {token["content"] for token in self.content["added_tokens"]} | {model["unk_token"]}
        if model["byte_fallback"]:
            others |= {f"<0x{byte:02X}>" for byte in range(256)}
        return {piece: number for piece, number in model["vocab"].items() if piece not in others}

    def piece_texts(self) -> dict[int, str]:
        if not self._is_byte_level:
            return {number: piece.replace(SPACE_MARK, " ") for piece, number in self.pieces().items()}
        byte_of = {character: byte for byte, character in byte_characters().items()}
        texts = {}
        for piece, number in self.pieces().items():
            with suppress(UnicodeDecodeError, KeyError):  # a part of a character has no text
                texts[number] = bytes(byte_of[character] for character in piece).decode()
        return texts

    @property
    def _is_byte_level(self) -> bool:
        return '"ByteLevel"' in json.dumps([self.content["pre_tokenizer"], self.content["decoder"]])

    def ids(self) -> dict[str, int]:
        added = {token["content"]: token["id"] for token in self.content["added_tokens"]}
        return {**self.content["model"]["vocab"], **added}

    def rank(self, left: str, right: str) -> float | None:
        return self._merges.get((left, right))

    def segment(self, words: list[str]) -> list[list[str]]:
        model = self._backend.model
        return [[token.value for token in model.tokenize(word)] for word in words]

    def segment_ids(self, words: Sequence[str]) -> NDArray[np.int32]:
        from tokenizers import Tokenizer

        model_alone: Any = Tokenizer(self._backend.model)  # no normalizer, pre-tokenizer or added tokens: a word is a word
        batches = (list(words[start : start + WORDS_A_BATCH]) for start in range(0, len(words), WORDS_A_BATCH))
        return joined_ids(row.ids for batch in batches for row in model_alone.encode_batch_fast(batch, add_special_tokens=False))

    def native_encode(self, texts: list[str]) -> list[list[int]] | None:
        return None

    def append(self, pieces: Sequence[str]) -> JsonVocabulary:
        vocab = self.ids()  # added tokens inside: they would else be numbered again from the vocabulary's new size
        check_new_pieces(pieces, vocab)
        vocab.update({piece: number for number, piece in enumerate(pieces, start=self.num_ids)})
        merges = [*self.content["model"]["merges"], *(list(pair) for pair in merge_list(pieces, vocab))]
        return self._changed(model={**self.content["model"], "vocab": vocab, "merges": merges})

    def letters(self) -> dict[str, int]:
        """Return the tokens of namespaced alphabets and their ids."""
        added = self.content["added_tokens"]
        return {token["content"]: token["id"] for token in added if not token["special"] and LETTER_TOKEN.fullmatch(token["content"])}

    def append_letters(self, tokens: Sequence[str]) -> JsonVocabulary:
        vocab = self.ids()
        check_new_letters(tokens, vocab)
        new = {token: number for number, token in enumerate(tokens, start=self.num_ids)}
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        added = [*self.content["added_tokens"], *({"id": number, "content": token, **flags} for token, number in new.items())]
        changed = self._changed(model={**self.content["model"], "vocab": {**vocab, **new}}, added_tokens=added)
        backend = changed._backend
        for token in tokens[:1]:
            text = f"a{token}b"
            if backend.decode(backend.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) != text:
                problem = f"{self._where} puts a space before the text behind a token such as '{token}'"
                raise InputError(problem, "a base without a word-start mark", "Use a base with a SentencePiece or tiktoken model")
        return changed

    def isolated(self) -> JsonVocabulary:
        before = self.content["pre_tokenizer"]
        pattern = single_pattern(before)
        if pattern is not None:
            parts = [_split(isolating_pattern(pattern)), before["pretokenizers"][1]]
        else:
            parts = [] if before is None else before["pretokenizers"] if before["type"] == "Sequence" else [before]
            parts = parts if parts[:1] == [_split(RUN)] else [_split(RUN), *parts]
        changed = self._changed(pre_tokenizer={"type": "Sequence", "pretokenizers": parts})
        if any(changed._words(text)[-1:] != [PROBE] for text in (PROBE, f"a {PROBE}", f"({PROBE}")):
            problem = f"{self._where} puts a word-start mark before every part of a text"
            raise InputError(problem, "a pre-tokenizer without one", "Leave isolation out, or use another base")
        return changed

    def tokenizer(self) -> PreTrainedTokenizerFast:
        return self._tokenizer

    def write_native(self, folder: Path) -> None:
        """Nothing: the tokenizer.json is its own native format."""


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
