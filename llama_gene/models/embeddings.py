"""Grow a model's embeddings to a spliced vocabulary. V_old base rows, V new rows, D width.

A new row starts as the mean of the rows of the base pieces that its text is made of (a new piece is by construction a concatenation
of base pieces), in the input embedding and in the output head alike; so the untrained model reads a new piece as a blend of what it
knew, and the loss starts near the base's instead of at log V. Rows of base ids keep their bits (law 5). Tied embeddings stay tied.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from llama_gene.errors import MismatchError


def grow_embeddings(model: PreTrainedModel, tokenizer: Any, base_tokenizer: Any) -> int:
    """Resize `model` to `len(tokenizer)` rows in place and initialise those of new ids; return how many ids are new.

    Padding rows that a base may have behind its last id become rows of new ids, or are cut off.
    Raises MismatchError when the tokenizer is not the base tokenizer plus new pieces, or the model has fewer rows than its tokenizer.
    """
    num_old, num_new = len(base_tokenizer), len(tokenizer)
    rows = _matrix(model.get_input_embeddings()).shape[0]
    if rows < num_old:
        raise MismatchError(
            f"the base model has {rows:,} embedding rows, its tokenizer {num_old:,} ids",
            "no fewer rows than ids",
            "Check that base and tokenizer belong together",
        )
    old_ids, new_ids = list(range(num_old)), list(range(num_old, num_new))
    if num_new < num_old or tokenizer.convert_ids_to_tokens(old_ids) != base_tokenizer.convert_ids_to_tokens(old_ids):
        raise MismatchError(
            f"the tokenizer ({num_new:,} ids) does not extend the base's ({num_old:,} ids)",
            "the base's ids unchanged, new ones after them",
            "Splice the vocabulary into this base's own tokenizer (llama-gene vocab --base)",
        )
    if num_new != rows:
        model.resize_token_embeddings(num_new, mean_resizing=False)
    matrices = [_matrix(model.get_input_embeddings())]
    head = model.get_output_embeddings()
    if head is not None and _matrix(head) is not matrices[0]:
        matrices.append(_matrix(head))
    if isinstance(getattr(head, "bias", None), torch.Tensor):  # few families have one; a vector has rows of one number
        matrices.append(head.bias)
    with torch.no_grad():
        for new_id, piece in zip(new_ids, tokenizer.convert_ids_to_tokens(new_ids), strict=True):
            parts = base_pieces_of(piece, base_tokenizer)
            for matrix in matrices:
                matrix[new_id] = matrix[parts].float().mean(0).to(matrix.dtype)
    return num_new - num_old


def _matrix(layer: Any) -> torch.Tensor:
    """Return the rows of an embedding or a head."""
    weight: torch.Tensor = layer.weight
    return weight


def base_pieces_of(piece: str, base_tokenizer: Any) -> list[int]:
    """Return the base ids that a new piece's text is made of, without the prefix that the base puts before a text."""
    return [token.id for token in base_tokenizer.backend_tokenizer.model.tokenize(piece)]
