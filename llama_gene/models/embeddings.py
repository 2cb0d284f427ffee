"""Grow a model's embeddings to a spliced vocabulary. V_old base rows, V new rows, D width.

A new row starts, in the input embedding and in the output head alike, in one of four ways:

- pieces (default): the mean of the rows of the base pieces that its text is made of (a new piece is by construction a concatenation of
  base pieces); so the untrained model reads a new piece as a blend of what it knew.
- quiet: the same, but in the head half-way to the mean of all base rows. The mean row's logit is far below those of likely tokens, so the
  new rows take less probability from what the base knows: a small base needs 1.6 % more bits for English instead of 5.4 %.
- mean: the mean of all base rows, one row for all (what transformers' `mean_resizing` draws around, without its draw).
- normal: N(0, the model's initializer_range), as if trained from nothing; a head's bias starts at 0.

Rows of base ids keep their bits (law 5). Tied embeddings stay tied. 60,160 rows of width 4,096 are one segmented mean, not 60,160
small operations: seconds, not minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, get_args

import torch
from transformers import PreTrainedModel

from llama_gene.errors import ConfigError, MismatchError
from llama_gene.models.settings import EmbeddingInit

CHUNK = 8192  # rows made at a time in float32: 128 MiB at width 4,096


def grow_embeddings(model: PreTrainedModel, tokenizer: Any, base_tokenizer: Any, init: EmbeddingInit = "pieces", seed: int = 0) -> int:
    """Resize `model` to `len(tokenizer)` rows in place and initialise those of new ids; return how many ids are new.

    `seed` is used by init "normal" alone. Padding rows that a base may have behind its last id become rows of new ids, or are cut off.
    Raises MismatchError when the tokenizer is not the base tokenizer plus new pieces, or the model has fewer rows than its tokenizer;
    ConfigError for an unknown `init`, or a quiet start of a head that is the embedding.
    """
    if init not in get_args(EmbeddingInit):
        raise ConfigError(f"embedding_init is '{init}'", f"one of {', '.join(get_args(EmbeddingInit))}")
    if init == "quiet" and len(_row_tables(model)) == 1:
        raise ConfigError("embedding_init is 'quiet' and the head is the embedding (tied)", "a head of its own", "Use 'pieces'")
    num_old, num_new = len(base_tokenizer), len(tokenizer)
    _check(model, tokenizer, base_tokenizer)
    if num_new != _matrix(model.get_input_embeddings()).shape[0]:
        model.resize_token_embeddings(num_new, mean_resizing=False)
    spread = float(getattr(model.config.get_text_config(), "initializer_range", 0.02))  # 0.02: transformers' own default
    pieces = tokenizer.convert_ids_to_tokens(list(range(num_old, num_new))) if init in ("pieces", "quiet") else []
    parts = [base_pieces_of(piece, base_tokenizer) for piece in pieces]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number, (rows_VD, is_bias) in enumerate(_row_tables(model) if num_new > num_old else []):
            if init in ("pieces", "quiet"):
                _fill_with_part_means(rows_VD, num_old, parts)
                if init == "quiet" and number > 0:  # the head, or its bias
                    _halve_the_way(rows_VD[num_old:], _mean_row(rows_VD[:num_old]))
            elif init == "mean":
                rows_VD[num_old:] = _mean_row(rows_VD[:num_old]).to(rows_VD)
            else:
                _fill_with_draws(rows_VD[num_old:], 0.0 if is_bias else spread, generator)
    return num_new - num_old


def base_pieces_of(piece: str, base_tokenizer: Any) -> list[int]:
    """Return the base ids that a new piece's text is made of, without the prefix that the base puts before a text.

    Empty where the base has no pieces that spell it: a private-use character, which stands for a namespaced letter such as `<3di:a>`
    in SentencePiece's own file, is to the base an unknown token or three raw bytes, which would tell nothing.
    """
    tokens = base_tokenizer.backend_tokenizer.model.tokenize(piece)
    return [token.id for token in tokens] if "".join(token.value for token in tokens) == piece else []


def _check(model: PreTrainedModel, tokenizer: Any, base_tokenizer: Any) -> None:
    """Raise MismatchError when model, tokenizer and base tokenizer do not belong together."""
    num_old, num_new, rows = len(base_tokenizer), len(tokenizer), _matrix(model.get_input_embeddings()).shape[0]
    if rows < num_old:
        raise MismatchError(
            f"the base model has {rows:,} embedding rows, its tokenizer {num_old:,} ids",
            "no fewer rows than ids",
            "Check that base and tokenizer belong together",
        )
    old_ids = list(range(num_old))
    if num_new < num_old or tokenizer.convert_ids_to_tokens(old_ids) != base_tokenizer.convert_ids_to_tokens(old_ids):
        raise MismatchError(
            f"the tokenizer ({num_new:,} ids) does not extend the base's ({num_old:,} ids)",
            "the base's ids unchanged, new ones after them",
            "Splice the vocabulary into this base's own tokenizer (llama-gene vocab --base)",
        )


def _matrix(layer: Any) -> torch.Tensor:
    """Return the rows of an embedding or a head."""
    weight: torch.Tensor = layer.weight
    return weight


def _row_tables(model: PreTrainedModel) -> list[tuple[torch.Tensor, bool]]:
    """Return what has a row an id and whether it is a bias: the embedding (V, D), the head (V, D) unless tied, its bias (V, 1)."""
    embedding, head = _matrix(model.get_input_embeddings()), model.get_output_embeddings()
    tables = [(embedding, False)]
    if head is not None and _matrix(head) is not embedding:
        tables.append((_matrix(head), False))
    if isinstance(getattr(head, "bias", None), torch.Tensor):  # few families have one
        tables.append((head.bias[:, None], True))
    return tables


def _fill_with_part_means(rows_VD: torch.Tensor, num_old: int, parts: Sequence[Sequence[int]]) -> None:
    """Set row num_old + n to the float32 mean of the rows parts[n], or of all base rows where parts[n] is empty."""
    spelled = [number for number, ids in enumerate(parts) if ids]
    flat = torch.tensor([part for number in spelled for part in parts[number]], dtype=torch.long)
    used, places = flat.unique(return_inverse=True)  # a few thousand base pieces spell all gene pieces: only they are widened to float32
    table_UD, places = rows_VD[used.to(rows_VD.device)].float(), places.to(rows_VD.device)
    ends = list(accumulate((len(parts[number]) for number in spelled), initial=0))
    for start in range(0, len(spelled), CHUNK):
        chunk = spelled[start : start + CHUNK]
        first, last = ends[start], ends[start + len(chunk)]
        offsets = torch.tensor(ends[start : start + len(chunk)], device=rows_VD.device) - first
        means_CD = torch.nn.functional.embedding_bag(places[first:last], table_UD, offsets, mode="mean")
        rows_VD[torch.tensor(chunk, device=rows_VD.device) + num_old] = means_CD.to(rows_VD)
    unspelled = [num_old + number for number, ids in enumerate(parts) if not ids]
    if unspelled:
        rows_VD[unspelled] = _mean_row(rows_VD[:num_old]).to(rows_VD)


def _halve_the_way(rows_VD: torch.Tensor, mean_D: torch.Tensor) -> None:
    """Move rows half-way to a mean row, in float32."""
    for chunk_CD in rows_VD.split(CHUNK):
        chunk_CD.copy_((chunk_CD.float() + mean_D.float()) / 2)


def _mean_row(rows_VD: torch.Tensor) -> torch.Tensor:
    """Return the mean of all rows, (D,), added up in float64: the order, which follows the number of threads, is then below rounding."""
    total_D = torch.zeros(rows_VD.shape[1], dtype=torch.float64, device=rows_VD.device)
    for chunk_CD in rows_VD.split(CHUNK):
        total_D += chunk_CD.double().sum(0)
    return total_D / len(rows_VD)


def _fill_with_draws(rows_VD: torch.Tensor, spread: float, generator: torch.Generator) -> None:
    """Set rows to draws from N(0, spread), made in float32 on the CPU, so that neither device nor precision changes the draw."""
    for chunk_CD in rows_VD.split(CHUNK):
        chunk_CD.copy_(torch.empty(chunk_CD.shape, dtype=torch.float32).normal_(0.0, spread, generator=generator))
