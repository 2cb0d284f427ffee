"""A tokenizer as GGUF writes it, for both kinds: what llama.cpp's own encoders need to give the ids that ours gives.

*SentencePiece* (`tokenizer.ggml.model = llama`): pieces, scores and types as the `tokenizer.model` has them. llama.cpp merges the adjacent
pair of the highest score, leftmost on ties, as sentencepiece does; our scores fall with the id, so nothing needs to be changed.

*BPE* (`gpt2`): the tokens in their byte-level spelling and the merges in order, from the tokenizer.json. How a text is cut before merging
is not in the file: llama.cpp has a fixed list of pre-tokenizers, known by name. `llama-bpe` is LLaMA-3's pattern and takes a whole cut
that is a token without merging it (`ignore_merges`); `gpt-2` is GPT-2's. Any other pattern would be encoded with other ids, without
an error; so it is refused, an isolating one by the name of the splice that has none.

What llama.cpp cannot run as we do is refused as well: a normalizer, and namespaced letters (`<3di:a>`) behind SentencePiece, since it
puts a dummy prefix (a space) behind every such token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_gene.errors import InputError
from llama_gene.tokenization.sentencepiece_splice import BYTE, CONTROL, NORMAL, USER_DEFINED, SentencePieceVocabulary
from llama_gene.tokenization.tiktoken_splice import LLAMA3_PATTERN, RUN, single_pattern
from llama_gene.tokenization.tokenizer import load_tokenizer, open_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

UNSPLICED = "Splice the vocabulary without isolation (`vocab splice --isolate false`), train and export with it"


@dataclass(frozen=True)
class TokenTable:
    """The `tokenizer.ggml` part of a GGUF file."""

    model: Literal["llama", "gpt2"]
    """llama.cpp's names of a SentencePiece BPE and of a byte-level BPE."""
    pre: str
    """The name of llama.cpp's pre-tokenizer."""
    tokens: list[str]
    """By id."""
    types: list[int]
    """SentencePiece's numbers, which GGUF has taken over: 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte."""
    scores: list[float] | None
    merges: list[str] | None
    """The two halves with a space between."""
    add_space_prefix: bool
    special_ids: dict[str, int]
    """bos, eos, unk and pad, those that there are."""
    add_bos: bool
    chat_template: str | None


def read_tokens(folder: Path) -> TokenTable:
    """Return the token table of a tokenizer folder. Raises InputError for a tokenizer that llama.cpp would run with other ids."""
    vocabulary = open_vocabulary(folder)
    tokenizer = load_tokenizer(folder)
    if isinstance(vocabulary, SentencePieceVocabulary):
        tokens, types, scores = _pieces(vocabulary, folder)
        return TokenTable("llama", "default", tokens, types, scores, None, _has_dummy_prefix(vocabulary), **_specials(tokenizer))
    content: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    pre = pre_tokenizer_name(content, vocabulary.pattern, folder)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]]
    tokens, types = _byte_level_tokens(content, folder)
    return TokenTable("gpt2", pre, tokens, types, None, merges, False, **_specials(tokenizer))


def pre_tokenizer_name(content: Mapping[str, Any], pattern: str | None, where: Path) -> str:
    """Return llama.cpp's name of a tokenizer.json's pre-tokenizer. Raises InputError where it has none that gives the same ids."""
    model, parts = content["model"], content.get("pre_tokenizer") or {}
    ignores_merges = bool(model.get("ignore_merges"))
    if RUN in json.dumps(parts).replace("\\\\", "\\"):
        fault = f"{where}: the tokenizer isolates gene runs by a pattern, and llama.cpp knows only its built-in patterns"
        raise InputError(fault, "a vocabulary without isolation", UNSPLICED)
    if content.get("normalizer") is not None:
        problem = "normalizes its text, which llama.cpp does not"
    elif model.get("byte_fallback") or model.get("type") != "BPE":
        problem = "is neither a byte-level BPE nor a SentencePiece with its tokenizer.model"
    elif single_pattern(parts) == LLAMA3_PATTERN and ignores_merges:
        return "llama-bpe"
    elif parts.get("type") == "ByteLevel" and parts.get("use_regex") and not parts.get("add_prefix_space") and not ignores_merges:
        return "gpt-2"
    else:
        problem = f"cuts its text by {str(pattern)[:60]!r}, which is none of llama.cpp's patterns"
    raise InputError(
        f"{where}: the tokenizer {problem}", "the tokenizer of a LLaMA-2, LLaMA-3 or GPT-2 base", "Use the model in transformers"
    )


def _pieces(vocabulary: SentencePieceVocabulary, where: Path) -> tuple[list[str], list[int], list[float]]:
    """Return pieces, types and scores of a SentencePiece model."""
    if letters := list(vocabulary.letters()):
        fault = f"{where}: llama.cpp puts a space behind every token such as '{letters[0]}' of a SentencePiece vocabulary"
        raise InputError(fault, "no namespaced letters", "Splice the vocabulary without them, or behind a tiktoken base")
    pieces = vocabulary.proto.pieces
    known = vocabulary.ids()
    for piece in pieces:
        halves = ((piece.piece[:cut], piece.piece[cut:]) for cut in range(1, len(piece.piece)))
        if piece.type in (CONTROL, BYTE) and any(left in known and right in known for left, right in halves):
            fault = f"{where}: llama.cpp would read the text '{piece.piece}' as the token of that name"
            raise InputError(fault, "no piece that is a part of it", "Use another base")
    return [piece.piece for piece in pieces], [piece.type for piece in pieces], [piece.score for piece in pieces]


def _byte_level_tokens(content: Mapping[str, Any], where: Path) -> tuple[list[str], list[int]]:
    """Return tokens and types of a byte-level BPE, by id."""
    added = {token["id"]: token for token in content["added_tokens"]}
    names = {number: piece for piece, number in content["model"]["vocab"].items()} | {key: token["content"] for key, token in added.items()}
    if gap := next((before + 1 for before, after in pairwise([-1, *sorted(names)]) if after != before + 1), None):
        raise InputError(f"{where}: no token has the id {gap}", f"ids from 0 to {max(names)} without a gap", "Use another base")
    if odd := next((token for token in added.values() if token["single_word"] or token["lstrip"] or token["rstrip"]), None):
        raise InputError(f"{where}: the token '{odd['content']}' takes what stands beside it", "added tokens that stand for themselves")
    kinds = {number: CONTROL if token["special"] else USER_DEFINED for number, token in added.items()}
    return [names[number] for number in range(len(names))], [kinds.get(number, NORMAL) for number in range(len(names))]


def _has_dummy_prefix(vocabulary: SentencePieceVocabulary) -> bool:
    return bool(vocabulary.proto.normalizer_spec.add_dummy_prefix)


def _specials(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return special ids, whether BOS stands before a text, and the chat template."""
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk", "pad")}
    start: list[int] = tokenizer.backend_tokenizer.encode("").ids
    if start not in ([], [ids["bos"]]):
        raise InputError(f"the tokenizer puts the ids {start} before a text", "BOS or nothing", "Use the model in transformers")
    template = tokenizer.chat_template
    return {
        "special_ids": {name: int(number) for name, number in ids.items() if number is not None},
        "add_bos": bool(start),
        "chat_template": template if isinstance(template, str) else None,
    }
