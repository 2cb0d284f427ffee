"""Vectors of sequences: what a model's layers hold after reading them. T tokens of a window, D width, L chosen layers.

A sequence is read without a prompt: [BOS] tokens for a causal model, [CLS] tokens [SEP] (whatever its own tokenizer adds) for an encoder.
Special tokens have no part in a vector.

    mean     the mean over the sequence's tokens
    last     the last token's vector: in a causal model the only one that has seen the whole sequence
    residue  a vector for each token, with the letters that it stands for

Long inputs. What does not fit into `max_length` tokens is read in windows that overlap by half, the last one reaching back from the end;
each token's vector is taken from one window only: in a causal model the first that holds it (so it has seen at least half a window
before it), in an encoder the one in which it lies further from the edges. Nothing is cut off.

Several layers are concatenated (D = L x width) or averaged. Layer 0 is the input embedding, -1 the last layer behind its final norm.

Memory: windows are read in groups of at most GROUP_TOKENS tokens (fewer for `residue`, where a group's vectors are 256 MiB), longest
first within a group; so it depends neither on the number of sequences nor, apart from its ids, on the length of one.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from llama_gene.errors import ConfigError, InputError
from llama_gene.inference.likelihood import is_causal
from llama_gene.inference.scoring import batches_by_length, inference_of
from llama_gene.models.adapters import ADAPTER_CONFIG, load_model
from llama_gene.models.build import hub_error
from llama_gene.models.settings import Precision
from llama_gene.tokenization.tokenizer import encode_batch, load_tokenizer

Pooling = Literal["mean", "last", "residue"]
GROUP_TOKENS = 1 << 18
_GROUP_NUMBERS = 1 << 26  # float32 numbers of a group's token vectors: 256 MiB
_CAUSAL = ("ForCausalLM", "LMHeadModel")


@dataclass(frozen=True)
class Reader:
    """A model without its output head, its tokenizer, and what it reads around a sequence."""

    model: Any
    tokenizer: Any
    prefix: list[int]
    suffix: list[int]
    causal: bool
    max_tokens: int | None
    """Longest input, special tokens included; None: no limit."""
    num_layers: int
    width: int


@dataclass(frozen=True)
class Embedded:
    """A sequence's vectors: one (1, D), or with `residue` one for each token (T, D) and the letters that it stands for."""

    vectors: NDArray[np.float32]
    first_token: int
    """Number of the first vector's token: with `residue` a long sequence comes in several parts."""
    is_last: bool
    """Nothing of this sequence follows."""
    tokens: int
    """Tokens of the whole sequence, special ones not counted."""
    windows: int
    """Windows of the whole sequence."""


def load_reader(name: str | Path, precision: Precision = "float32") -> Reader:
    """Return the reader of an adapter folder of ours, or any Hugging Face folder or hub id: a causal model, an encoder, a classifier.

    Of an encoder-decoder (T5) the encoder is read. Raises what `load_model` raises.
    """
    path = Path(name).expanduser()
    body: Any
    prefix: list[int]
    suffix: list[int]
    if (path / ADAPTER_CONFIG).is_file() or _names_causal(str(name), path):
        model, tokenizer = load_model(name, precision)
        body = (model.get_base_model() if isinstance(model, PeftModel) else model).base_model
    else:
        body, tokenizer = _load_encoder(str(name), path, precision)
    body.eval()
    causal = is_causal(body, len(tokenizer))
    if causal:
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        prefix, suffix = [start] if start is not None else [], []
    else:
        prefix, suffix = _around(tokenizer)
    config = body.config.get_text_config()
    return Reader(
        body, tokenizer, prefix, suffix, causal, _longest_input(body), int(config.num_hidden_layers), int(config.hidden_size)
    )  # fmt: skip


def choose_layers(reader: Reader, layers: Sequence[int]) -> list[int]:
    """Return layers counted from 0, the input embedding. Raises ConfigError for one that the model does not have.

    Negative numbers count from the end: -1 is the last layer.
    """
    total = reader.num_layers + 1
    for layer in layers:
        if not -total <= layer < total:
            raise ConfigError(f"layer {layer}", f"0 to {total - 1}, or -1 to -{total}", f"The model has {total - 1} layers")
    if not layers:
        raise ConfigError("no layer is named", "at least one", "Use -1, the last layer")
    return [layer % total for layer in layers]


def room_of(reader: Reader, max_length: int) -> int:
    """Return how many tokens of a sequence a window holds. Raises ConfigError where there is no room for one."""
    room = min(max_length, reader.max_tokens or max_length) - len(reader.prefix) - len(reader.suffix)
    if room < 1:
        raise ConfigError(f"max_length {max_length} has no room for a sequence", "more tokens than the special ones", "Raise it")
    return room


@dataclass(frozen=True)
class _Window:
    """Part of a sequence for one pass: its ids with special tokens, and the columns whose vectors are taken from it."""

    ids: list[int]
    start: int
    stop: int
    first_token: int  # of the column `start`, in the sequence
    is_last: bool
    tokens: int
    windows: int


def embed(
    reader: Reader,
    texts: Iterable[str],
    pooling: Pooling = "mean",
    layers: Sequence[int] = (-1,),
    combine: Literal["concat", "mean"] = "concat",
    max_length: int = 1024,
    batch_tokens: int = 16384,
) -> Iterator[Embedded]:
    """Yield the vectors of each text, in order; with `residue` a long text in several parts, each with its `first_token`.

    A vector does not depend on the other texts, their order or `batch_tokens` (law 8). `max_length` is that of a window, special tokens
    included, at most the model's own. Raises ConfigError for a layer that does not exist or a window without room, InputError for a text
    without a token.
    """
    chosen = choose_layers(reader, layers)
    room = room_of(reader, max_length)
    width = reader.width * (len(chosen) if combine == "concat" else 1)
    limit = max(batch_tokens, min(GROUP_TOKENS, _GROUP_NUMBERS // width)) if pooling == "residue" else GROUP_TOKENS
    total, last = np.zeros(width, np.float64), np.zeros(width, np.float32)
    for group in _groups(_all_windows(reader, texts, room), limit):
        with inference_of(reader.model):  # never across a yield: the caller's own code would run in inference mode
            taken = _read(reader, group, pooling, chosen, combine, batch_tokens)
        for window, vectors_TD in zip(group, taken, strict=True):
            if pooling == "residue":
                yield Embedded(vectors_TD, window.first_token, window.is_last, window.tokens, window.windows)
                continue
            total += vectors_TD[0]
            last = vectors_TD[0]
            if window.is_last:
                vector = last if pooling == "last" else (total / window.tokens).astype(np.float32)
                yield Embedded(vector[None], 0, True, window.tokens, window.windows)
                total[:] = 0


def token_spans(reader: Reader, text: str) -> list[tuple[int, int]]:
    """Return (start, end) of the letters that each token of a text stands for, 0-based, end excluded; together they are the text.

    A word-start mark stands for no letter. Raises InputError for a tokenizer that cannot say (one that leaves letters out).
    """
    tokenizer = reader.tokenizer
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        spans = [(int(start), int(end)) for start, end in tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).offsets]
    else:
        pieces = tokenizer.tokenize(text)
        ends = np.cumsum([len(piece) for piece in pieces]).tolist()
        spans = list(zip([0, *ends[:-1]], ends, strict=True)) if "".join(pieces) == text else []
    place, clean = 0, []
    for start, end in spans:
        if start > place:
            break
        clean.append((place, max(place, end)))
        place = max(place, end)
    if place != len(text) or len(clean) != len(spans):
        raise InputError(
            f"the tokenizer does not say which letters of {text[:20]!r} its tokens stand for", "tokens that spell the text", "Pool by mean"
        )
    return clean


def plan_windows(num_tokens: int, room: int, causal: bool) -> list[tuple[int, int, int, int]]:
    """Return (begin, end, own begin, own end) of each window: the last two say which tokens' vectors are taken from it.

    >>> plan_windows(10, 4, causal=True)
    [(0, 4, 0, 4), (2, 6, 4, 6), (4, 8, 6, 8), (6, 10, 8, 10)]
    >>> plan_windows(9, 4, causal=False)
    [(0, 4, 0, 3), (2, 6, 3, 5), (4, 8, 5, 6), (5, 9, 6, 9)]
    """
    step = max(1, room // 2)
    ends = [min(room, num_tokens)]
    while ends[-1] < num_tokens:
        ends.append(min(ends[-1] + step, num_tokens))
    spans = [(max(0, end - room), end) for end in ends]
    cuts = [end if causal else (begin + end) // 2 for (_, end), (begin, _) in pairwise(spans)]
    return [(*span, own, own_end) for span, own, own_end in zip(spans, [0, *cuts], [*cuts, num_tokens], strict=True)]


def _all_windows(reader: Reader, texts: Iterable[str], room: int) -> Iterator[_Window]:
    """Yield the windows of each text, in order."""
    for number, ids in enumerate(_encoded(reader.tokenizer, texts), start=1):
        if not ids:
            raise InputError(f"sequence {number} has no token", "at least one", "Leave empty sequences out")
        plan = plan_windows(len(ids), room, reader.causal)
        for begin, end, own, own_end in plan:
            offset = len(reader.prefix) - begin
            window_ids = [*reader.prefix, *ids[begin:end], *reader.suffix]
            yield _Window(window_ids, own + offset, own_end + offset, own, end == len(ids), len(ids), len(plan))


def _encoded(tokenizer: Any, texts: Iterable[str]) -> Iterator[list[int]]:
    """Yield the ids of each text, without special tokens; texts are encoded some at a time."""
    waiting: list[str] = []
    letters = 0
    for text in texts:
        waiting.append(text)
        letters += len(text)
        if letters >= GROUP_TOKENS or len(waiting) >= 1024:
            yield from _encode(tokenizer, waiting)
            waiting, letters = [], 0
    yield from _encode(tokenizer, waiting)


def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Return the ids of some texts."""
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        return encode_batch(tokenizer, texts)
    return [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) for text in texts]


def _groups(windows: Iterable[_Window], limit: int) -> Iterator[list[_Window]]:
    """Yield windows in groups of at most `limit` tokens (one window at least)."""
    group: list[_Window] = []
    tokens = 0
    for window in windows:
        if group and tokens + len(window.ids) > limit:
            yield group
            group, tokens = [], 0
        group.append(window)
        tokens += len(window.ids)
    if group:
        yield group


def _read(
    reader: Reader, group: Sequence[_Window], pooling: Pooling, layers: Sequence[int], combine: str, batch_tokens: int
) -> list[NDArray[np.float32]]:
    """Return what is taken from each window: the sum over its own tokens (1, D), its last own token's vector (1, D), or all (T, D)."""
    taken: list[NDArray[np.float32]] = [np.empty((0, 0), np.float32)] * len(group)
    for batch in batches_by_length([len(window.ids) for window in group], batch_tokens):
        hidden_BTD = _hidden(reader, [group[i].ids for i in batch], layers, combine)
        for b, i in enumerate(batch):
            vectors_TD = hidden_BTD[b, group[i].start : group[i].stop].float()
            if pooling == "mean":
                vectors_TD = vectors_TD.sum(0, keepdim=True)
            elif pooling == "last":
                vectors_TD = vectors_TD[-1:]
            taken[i] = vectors_TD.cpu().numpy()
    return taken


def _hidden(reader: Reader, rows: Sequence[Sequence[int]], layers: Sequence[int], combine: str) -> torch.Tensor:
    """Return the chosen layers of right-padded rows, (B, T, D)."""
    longest = max(map(len, rows))
    device = reader.model.device
    pad = reader.tokenizer.pad_token_id or 0
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=device),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device),
    }
    if "use_cache" in inspect.signature(reader.model.forward).parameters:
        inputs["use_cache"] = False
    if list(layers) == [reader.num_layers]:  # no need to keep the others
        hidden_BTD: torch.Tensor = reader.model(**inputs).last_hidden_state
        return hidden_BTD
    states = reader.model(**inputs, output_hidden_states=True).hidden_states
    chosen = [states[layer] for layer in layers]
    return torch.cat(chosen, -1) if combine == "concat" else torch.stack([state.float() for state in chosen]).mean(0)


# Models


def _names_causal(name: str, path: Path) -> bool:
    """Return whether a folder or hub id says that it holds a causal language model, or cannot be read at all (`load_model` says why)."""
    if path.is_dir() and not (path / "config.json").is_file():
        return True
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError):
        return True
    return any(written.endswith(_CAUSAL) for written in getattr(config, "architectures", None) or [])


def _load_encoder(name: str, path: Path, precision: Precision) -> tuple[Any, Any]:
    """Return (body, tokenizer) of what is no causal language model."""
    try:
        model: Any
        options = {"dtype": getattr(torch, precision), "output_loading_info": True}
        model, info = AutoModel.from_pretrained(name, trust_remote_code=False, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if path.is_dir():
            reason = str(error).strip().split("\n", 1)[0][:200]
            raise InputError(f"{path}: {reason}", "a Hugging Face model", "Check the folder's config and weights") from error
        raise hub_error(name, error) from error
    if missing := [key for key in info["missing_keys"] if "pooler" not in key]:  # the pooler is not used, and often not there
        raise InputError(f"{name} lacks {len(missing)} weights, such as {missing[0]}", "all of them", "They would be random: copy it again")
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return model, load_tokenizer(name)
    except InputError:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        if isinstance(tokenizer, PreTrainedTokenizerFast):
            raise
        return model, tokenizer  # a tokenizer in Python (ESM's)


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens that a tokenizer puts before and behind a text."""
    whole: list[int] = tokenizer("A")["input_ids"]
    inner: list[int] = _encode(tokenizer, ["A"])[0]
    for start in range(len(whole) - len(inner) + 1):
        if whole[start : start + len(inner)] == inner:
            return whole[:start], whole[start + len(inner) :]
    return [], []


def _longest_input(model: Any) -> int | None:
    """Return how many tokens a model can read; learned positions that begin behind the padding index (RoBERTa, ESM) are fewer."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if not limit or limit < 1:
        return None
    tables = [module for key, module in model.named_modules() if key.endswith("position_embeddings")]
    padded = [table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None]
    return int(limit) - (padded[0] + 1 if padded else 0)
