"""Vectors of sequences from any Hugging Face encoder or causal model that transformers holds itself. B rows, T tokens, D width.

*No foreign code.* trust_remote_code is never used. A model that brings code of its own is refused: either transformers does not know its
type, or (some such repositories name a known type) its weights leave tensors of transformers' own class unfilled, which a random vector
would hide.

*Spelling.* Tokenizers of sequence models want letters plain (ESM-2, gene vocabularies), with spaces between them (ProtBert, ProtT5), or as
overlapping k-mers (DNABERT). The first spelling whose tokens are not unknown is taken; the log says which. Where every spelling gives
mostly unknown tokens, the model cannot read such sequences and is refused.

*Vectors.* A row's vector is the mean of the last hidden states of its tokens, specials and padding left out. Rows are padded on the right
under an attention mask, so a vector does not depend on batch mates (law 8). What is longer than the model is halved until it fits, and the
means are weighted by tokens; the number of such rows is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer
from transformers.utils import logging as transformers_logging

from llama_gene import runtime
from llama_gene.errors import InputError, MissingFileError
from llama_gene.models.adapters import check_vocabulary
from llama_gene.models.build import hub_error
from llama_gene.models.heads import refuse_adapter
from llama_gene.models.settings import Precision
from llama_gene.tokenization.tokenizer import load_tokenizer

KMERS = (6, 5, 4, 3)
MOST_UNKNOWN = 0.5
NUM_SAMPLED, LETTERS_SAMPLED = 20, 200
NEEDS_CODE = "a model that transformers holds itself (BERT, ESM, T5, GPT-2, LLaMA, ...)"
USE_ANOTHER = "This package runs no code from a model's repository: use a version converted for transformers, or another model"
_BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")
_MARKS = "▁Ġ"  # of a word's start


@dataclass(frozen=True)
class Encoder:
    """A model's body, its tokenizer, how letters are spelled for it, and its longest input in tokens."""

    name: str
    model: Any
    tokenizer: Any
    spelling: str  # "plain", "spaced" or "6-mers"
    limit: int

    def encode(self, text: str) -> list[int]:
        """Return a sequence's ids, with the special tokens that the tokenizer adds."""
        return encode_spelled(self.tokenizer, text, self.spelling)


def load_encoder(name_or_path: str | Path, texts: Sequence[str], max_length: int = 1024, precision: Precision = "float32") -> Encoder:
    """Load an encoder or the body of a causal model, in eval mode, on the GPU if there is one; `texts` decide the spelling.

    Raises MissingFileError for a folder that does not exist, InputError for one that is no model, that needs code of its own or whose
    tokenizer knows no letter of the texts, ConfigError for an adapter, MachineError for a hub id that cannot be had.
    """
    name = model_name(name_or_path)
    config = load_config(name)
    has_encoder = type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING  # of an encoder-decoder (ProtT5), the encoder
    kind: Any = AutoModelForTextEncoding if has_encoder else AutoModel
    model = load_whole(kind, name, config, precision)
    tokenizer = load_any_tokenizer(name)
    rows = model.get_input_embeddings().weight.shape[0]
    if rows < len(tokenizer):
        raise InputError(f"{name}: {rows:,} embedding rows for {len(tokenizer):,} ids", "at least a row an id", "Check the folder")
    spelling = find_spelling(tokenizer, texts, name)
    limit = longest_input(model, tokenizer, max_length)
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return Encoder(name, model, tokenizer, spelling, limit)


def model_name(name_or_path: str | Path) -> str:
    """Return a folder's path or a hub id. Raises MissingFileError, InputError, or ConfigError for an adapter."""
    name, local = str(name_or_path), Path(name_or_path).expanduser()
    refuse_adapter(local)
    if local.is_dir():
        if not (local / "config.json").is_file():
            raise InputError(f"{local} has no config.json", "a Hugging Face model folder", "Check the path")
        return str(local)
    if local.is_file():
        raise InputError(f"{local} is a file", "a Hugging Face model folder or a hub id", "Give the folder that holds config.json")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise MissingFileError(name, "a Hugging Face model folder or a hub id such as facebook/esm2_t6_8M_UR50D")
    return name


def load_config(name: str) -> Any:
    """Return a model's config. Raises InputError where it needs code of its own, or the folder is no model."""
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise _refusal(name, error) from error


def load_any_tokenizer(name: str, is_ours: bool = True) -> Any:
    """Return a model's tokenizer, also one that is not `tokenizers`' own. Raises InputError where it needs code of its own.

    A folder of ours (`is_ours`: one whose manifest names a vocabulary) is read and compared as our stages do.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refusal(name, error) from error
    manifest = Path(name) / runtime.MANIFEST_NAME
    if is_ours and manifest.is_file() and runtime.read_json(manifest).get("vocabulary"):  # a folder of ours: read it as we wrote it
        tokenizer = load_tokenizer(name)
        check_vocabulary(runtime.read_json(manifest).get("vocabulary"), tokenizer, name)
    return tokenizer


def load_whole(kind: Any, name: str, config: Any, precision: Precision = "float32") -> Any:
    """Return a model of an auto class whose body's tensors all come from the weights; a head above it, and a pooler, may be fresh.

    Raises InputError where others are missing or of another shape: the weights belong to another network.
    """
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # its table of missing tensors: what matters of it is said below
    try:
        model, facts = kind.from_pretrained(
            name,
            config=config,
            trust_remote_code=False,
            dtype=getattr(torch, precision),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _refusal(name, error) from error
    finally:
        transformers_logging.set_verbosity(level)
    body = f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""
    mismatched = (str(entry[0] if isinstance(entry, (list, tuple)) else entry) for entry in facts.get("mismatched_keys", ()))
    missing, wrong = (
        sorted(key for key in keys if key.startswith(body) and "pooler" not in key) for keys in (facts["missing_keys"], mismatched)
    )
    if missing or wrong:
        found = f"{len(missing)} tensors of {type(model).__name__} are not in the weights of {name}" if missing else ""
        found = found or f"{len(wrong)} tensors in the weights of {name} have another shape than {type(model).__name__}'s"
        example = (missing or wrong)[0]
        own_code = " and names code of its own" if getattr(config, "auto_map", None) else ""
        raise InputError(f"{found} (such as {example}){own_code}", NEEDS_CODE, USE_ANOTHER)
    return model


def _refusal(name: str, error: Exception) -> Exception:
    """Return the one line for a model that cannot be loaded."""
    said = str(error).strip().split("\n", 1)[0].rstrip(". ")[:200]
    if any(sign in str(error) for sign in ("trust_remote_code", "does not recognize this architecture", "custom code")):
        return InputError(f"{name} needs code of its own to be loaded", NEEDS_CODE, USE_ANOTHER)
    if Path(name).is_dir():
        return InputError(f"{name}: {said}", NEEDS_CODE, "Check the folder's config, weights and tokenizer")
    return hub_error(name, error)


def longest_input(model: Any, tokenizer: Any, max_length: int) -> int:
    """Return the longest input in tokens: `max_length`, or less where positions or the tokenizer end earlier."""
    limits = [max_length]
    places = getattr(model.config, "max_position_embeddings", None)
    if places:
        # RoBERTa and ESM count positions from behind the padding id, so that the first ones are never used
        taken = max(
            (module.padding_idx + 1 for name, module in model.named_modules() if name.endswith("position_embeddings") and _pads(module)),
            default=0,
        )
        limits.append(int(places) - taken)
    if tokenizer.model_max_length and tokenizer.model_max_length < 10**9:
        limits.append(int(tokenizer.model_max_length))
    return min(limits)


def _pads(module: Any) -> bool:
    return isinstance(module, torch.nn.Embedding) and module.padding_idx is not None


# --- spelling --------------------------------------------------------------------------------------------------------------------


def spell(text: str, spelling: str) -> str:
    """Return a sequence as a tokenizer wants it.

    >>> spell("ACGTA", "spaced"), spell("ACGTA", "3-mers"), spell("AC", "3-mers")
    ('A C G T A', 'ACG CGT GTA', 'AC')
    """
    if spelling == "spaced":
        return " ".join(text)
    if spelling.endswith("-mers"):
        size = int(spelling.split("-")[0])
        return " ".join(text[i : i + size] for i in range(max(1, len(text) - size + 1)))
    return text


def encode_spelled(tokenizer: Any, text: str, spelling: str) -> list[int]:
    """Return the ids of a spelled sequence, with the tokenizer's special tokens."""
    ids: list[int] = tokenizer(spell(text, spelling), add_special_tokens=True, truncation=False, verbose=False)["input_ids"]
    return ids


def find_spelling(tokenizer: Any, texts: Sequence[str], name: str) -> str:
    """Return the spelling with the fewest unknown tokens: plain, spaced or k-mers (of equals the first in this order).

    Raises InputError where even the best gives more than half unknown tokens.
    """
    sample = [text[:LETTERS_SAMPLED] for text in texts[:NUM_SAMPLED] if text]
    spellings = ["plain", "spaced", *(f"{size}-mers" for size in KMERS)]
    shares = {spelling: _unknown_share(tokenizer, sample, spelling) for spelling in spellings}
    best = min(spellings, key=lambda spelling: (shares[spelling], spellings.index(spelling)))
    if shares[best] > MOST_UNKNOWN:
        raise InputError(
            f"the tokenizer of {name} turns {100 * shares[best]:.0f} % of these sequences' tokens into the unknown one",
            "a vocabulary that holds their letters or k-mers",
            "Use a model that was trained on such sequences",
        )
    words = {"plain": "letters as they are", "spaced": "letters with spaces between them"}
    runtime.get_logger().info(
        "%s: sequences are spelled as %s; %.1f %% unknown tokens", name, words.get(best, f"overlapping {best}"), 100 * shares[best]
    )
    return best


def _unknown_share(tokenizer: Any, texts: Sequence[str], spelling: str) -> float:
    """Return the share of the letters that unknown tokens stand for, specials aside; a tokenizer that drops everything knows nothing."""
    unknown, total = 0.0, 0
    for text in texts:
        ids = [i for i in encode_spelled(tokenizer, text, spelling) if i not in outer_ids(tokenizer)]
        total += len(text)
        if not ids:
            unknown += len(text)
        elif spelling == "plain" and tokenizer.unk_token_id is not None:
            pieces = tokenizer.convert_ids_to_tokens(ids)
            known = sum(piece_letters(piece) for i, piece in zip(ids, pieces, strict=True) if i != tokenizer.unk_token_id)
            unknown += max(0, len(text) - known)  # one unknown token may stand for a whole word
        elif tokenizer.unk_token_id is not None:
            unknown += len(text) * ids.count(tokenizer.unk_token_id) / len(ids)
    return unknown / total if total else 0.0


def outer_ids(tokenizer: Any) -> set[int]:
    """Return the ids that stand around a sequence and are none of its letters: all special ones but the unknown token."""
    return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}


def piece_letters(piece: str) -> int:
    """Return how many letters a piece of a vocabulary stands for.

    >>> piece_letters("▁MK"), piece_letters("##ACG"), piece_letters("<0x58>"), piece_letters("▁")
    (2, 3, 1, 0)
    """
    return 1 if _BYTE_PIECE.fullmatch(piece) else len(piece.removeprefix("##").strip(_MARKS))


# --- vectors ---------------------------------------------------------------------------------------------------------------------


def row_vectors(encoder: Encoder, texts: Sequence[str], batch_tokens: int = 16384) -> tuple[NDArray[np.float64], int]:
    """Return the mean vector of each sequence, (N, D) in their order, and how many were cut into windows."""
    owners, windows = _windows(encoder, texts)
    sums, counts = np.zeros((len(texts), 0)), np.zeros(len(texts))
    for place, hidden in _hidden(encoder, windows, batch_tokens):
        if sums.shape[1] == 0:
            sums = np.zeros((len(texts), hidden.shape[1]))
        sums[owners[place]] += hidden.sum(0)
        counts[owners[place]] += len(hidden)
    return sums / np.maximum(counts, 1)[:, None], len(texts) - sum(np.bincount(owners, minlength=len(texts)) == 1)


def letter_vectors(encoder: Encoder, texts: Sequence[str], batch_tokens: int = 16384) -> list[NDArray[np.float64]]:
    """Return for each sequence the vectors of its letters, (L, D): a token's vector for each letter that it covers.

    Raises InputError where tokens do not add up to letters (a vocabulary that normalises or drops some).
    """
    owners, windows = _windows(encoder, texts)
    parts: dict[int, NDArray[np.float64]] = {}
    for place, hidden in _hidden(encoder, windows, batch_tokens):
        parts[place] = hidden[_tokens_of_letters(encoder, windows[place])]
    joined: list[list[NDArray[np.float64]]] = [[] for _ in texts]
    for place, owner in enumerate(owners):
        joined[owner].append(parts[place])
    return [np.concatenate(pieces) for pieces in joined]


def _tokens_of_letters(encoder: Encoder, text: str) -> list[int]:
    """Return for each letter the number of the token (specials aside) that stands for it."""
    ids = [i for i in encoder.encode(text) if i not in outer_ids(encoder.tokenizer)]
    if encoder.spelling.endswith("-mers"):
        size = int(encoder.spelling.split("-")[0])
        return [min(max(0, letter - size // 2), len(ids) - 1) for letter in range(len(text))]
    pieces = encoder.tokenizer.convert_ids_to_tokens(ids)
    unknown = encoder.tokenizer.unk_token_id
    sizes = [1 if i == unknown else piece_letters(piece) for i, piece in zip(ids, pieces, strict=True)]
    if sum(sizes) != len(text):
        raise InputError(
            f"the tokens of '{text[:20]}...' cover {sum(sizes)} letters for {encoder.name}", f"its {len(text)} letters", "Use another model"
        )
    return [token for token, size in enumerate(sizes) for _ in range(size)]


def _windows(encoder: Encoder, texts: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return windows that fit the model, in order, and the number of the text that each is of. Raises InputError for an empty text."""
    owners, windows = [], []
    for number, text in enumerate(texts):
        if not text:
            raise InputError("a sequence is empty", "at least one letter", "Leave empty sequences out")
        for window in _halved(encoder, text):
            owners.append(number)
            windows.append(window)
    return owners, windows


def _halved(encoder: Encoder, text: str) -> Iterator[str]:
    if len(encoder.encode(text)) <= encoder.limit or len(text) == 1:
        yield text
    else:
        yield from _halved(encoder, text[: len(text) // 2])
        yield from _halved(encoder, text[len(text) // 2 :])


def _hidden(encoder: Encoder, texts: Sequence[str], batch_tokens: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield (place, last hidden states of the tokens that are no specials, (T, D)) of each text, longest first."""
    rows = [encoder.encode(text) for text in texts]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    pad_id = next((i for i in (encoder.tokenizer.pad_token_id, getattr(encoder.model.config, "pad_token_id", None)) if i is not None), 0)
    outer = torch.tensor(sorted(outer_ids(encoder.tokenizer)))
    start = 0
    with torch.inference_mode():
        while start < len(order):
            batch = order[start : start + max(1, batch_tokens // max(1, len(rows[order[start]])))]
            longest = len(rows[batch[0]])
            ids_BT = torch.tensor([[*rows[i], *[pad_id] * (longest - len(rows[i]))] for i in batch])
            mask_BT = torch.tensor([[1] * len(rows[i]) + [0] * (longest - len(rows[i])) for i in batch])
            inputs = {"input_ids": ids_BT.to(encoder.model.device), "attention_mask": mask_BT.to(encoder.model.device)}
            hidden_BTD = encoder.model(**inputs).last_hidden_state.double().cpu()
            is_letter_BT = (mask_BT == 1) & ~torch.isin(ids_BT, outer)
            for number, place in enumerate(batch):
                yield place, hidden_BTD[number][is_letter_BT[number]].numpy()
            start += len(batch)
