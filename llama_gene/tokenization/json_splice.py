"""Splice gene pieces behind a base that has only a `tokenizer.json` of BPE type (GPT-2, Qwen, a dictionary of our own).

New pieces go into the model's vocabulary behind the highest id, added tokens included; their merges go behind all merges. The
base's own merges stay exactly as they are: its list names one split of a piece where a string rule would allow several, so
reachability is judged pair by pair here. What would need more than that (a normalizer that changes letters, a pre-tokenizer that
splits words, a model that is not BPE) is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene.errors import InputError
from llama_gene.tokenization.bpe import merge_list
from llama_gene.tokenization.sentencepiece_splice import check_new_pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PROBE = "ACGTTGCANNMKTAYIAKQRQISFVK"  # a gene word: it must come through normalizer and pre-tokenizer in one piece


class JsonVocabulary:
    """A transformers tokenizer over a BPE `tokenizer.json`; see `bpe.Vocabulary` for what each method means."""

    kind = "bpe"

    def __init__(self, tokenizer: PreTrainedTokenizerFast, where: str) -> None:
        self._tokenizer = tokenizer
        self._where = where
        self.content: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
        self._check()
        self._merges = {self._pair(merge): place for place, merge in enumerate(self.content["model"]["merges"])}

    def _check(self) -> None:
        model, backend = self.content["model"], self._tokenizer.backend_tokenizer
        if model.get("type") != "BPE":
            problem = f"is a {model.get('type')} tokenizer"
        elif model.get("continuing_subword_prefix") or model.get("end_of_word_suffix") or model.get("dropout"):
            problem = "marks subwords or drops merges"
        else:
            text = backend.normalizer.normalize_str(PROBE) if backend.normalizer else PROBE
            words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)] if backend.pre_tokenizer else [text]
            if len(words) == 1 and words[0].lstrip("\u2581\u0120") == PROBE:
                return
            problem = "changes or splits gene sequences before merging"
        raise InputError(f"{self._where} {problem}", "a plain BPE tokenizer.json", "Use a base with a SentencePiece or tiktoken model")

    @staticmethod
    def _pair(merge: str | list[str]) -> tuple[str, str]:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        return left, right

    @property
    def num_ids(self) -> int:
        return 1 + max(self.ids().values())

    def pieces(self) -> dict[str, int]:
        special = {token["content"] for token in self.content["added_tokens"]}
        return {piece: number for piece, number in self.content["model"]["vocab"].items() if piece not in special}

    def ids(self) -> dict[str, int]:
        added = {token["content"]: token["id"] for token in self.content["added_tokens"]}
        return {**self.content["model"]["vocab"], **added}

    def rank(self, left: str, right: str) -> float | None:
        return self._merges.get((left, right))

    @cached_property
    def _model(self) -> Any:
        return self._tokenizer.backend_tokenizer.model

    def segment(self, words: list[str]) -> list[list[str]]:
        return [[token.value for token in self._model.tokenize(word)] for word in words]

    def native_encode(self, texts: list[str]) -> list[list[int]] | None:
        return None

    def append(self, pieces: Sequence[str]) -> JsonVocabulary:
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        check_new_pieces(pieces, self.ids())
        content = json.loads(json.dumps(self.content))
        vocab = self.ids()  # added tokens inside: they would else be numbered again from the vocabulary's new size
        content["model"]["vocab"] = vocab
        first = self.num_ids
        vocab.update({piece: first + offset for offset, piece in enumerate(pieces)})
        merges = [list(self._pair(merge)) for merge in content["model"]["merges"]]
        content["model"]["merges"] = merges + [list(pair) for pair in merge_list(pieces, vocab)]
        old = self._tokenizer
        spliced = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(json.dumps(content)),
            bos_token=old.bos_token, eos_token=old.eos_token, unk_token=old.unk_token, pad_token=old.pad_token,
            clean_up_tokenization_spaces=False,
        )  # fmt: skip
        return JsonVocabulary(spliced, self._where)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        return self._tokenizer

    def write_native(self, folder: Path) -> None:
        """Nothing: the tokenizer.json is its own native format."""
