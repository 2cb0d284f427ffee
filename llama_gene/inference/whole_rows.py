"""Label scores of models that read a text as a state (Mamba, RWKV, RecurrentGemma, Jamba): prompt and label in one row, no cache.

B rows of a batch, T tokens of the longest row, V vocabulary.

A state cannot be cut back to the prompt as keys and values can, so each [prompt + label] is read whole, at K (T + L) tokens a prompt. Rows
are padded on the *right*: a state goes from left to right only, so padding behind a row cannot reach it (law 8), whether or not the
model knows of masks (RWKV does not).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import PreTrainedModel

from llama_gene.inference.scoring import MAX_LOGITS, batches_by_length, inference_of


def score_whole_rows(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[Sequence[Sequence[int]]],
    batch_tokens: int,
    vocab_size: int,
    progress: bool = False,
) -> NDArray[np.float64]:
    """Return what `score_labels` returns, (N, K) nats, given each prompt's own list of labels; -inf where a prompt has fewer than K."""
    scores = np.full((len(prompts), max((len(row) for row in labels), default=0)), -np.inf)
    places = [(i, k) for i, row in enumerate(labels) for k in range(len(row))]
    lengths = [len(prompts[i]) + len(labels[i][k]) for i, k in places]
    max_rows = max(1, MAX_LOGITS // (vocab_size * max(lengths, default=1)))
    with inference_of(model), tqdm(total=len(places), desc="scoring", unit="row", disable=not progress) as bar:
        for batch in batches_by_length(lengths, batch_tokens, max_rows):
            rows = [(prompts[i], labels[i][k]) for i, k in (places[number] for number in batch)]
            for number, value in zip(batch, _score(model, rows, vocab_size), strict=True):
                scores[places[number]] = value
            bar.update(len(batch))
    return scores


def _score(model: PreTrainedModel, rows: Sequence[tuple[Sequence[int], Sequence[int]]], vocab_size: int) -> NDArray[np.float64]:
    """Return the log-likelihood of each row's label, shape (B,)."""
    width = max(len(prompt) + len(label) for prompt, label in rows)
    ids_BT = torch.zeros(len(rows), width, dtype=torch.long)
    mask_BT = torch.zeros(len(rows), width, dtype=torch.long)
    scored_BT = torch.zeros(len(rows), width, dtype=torch.bool)
    for b, (prompt, label) in enumerate(rows):
        end = len(prompt) + len(label)
        ids_BT[b, :end] = torch.tensor([*prompt, *label])
        mask_BT[b, :end] = 1
        scored_BT[b, len(prompt) : end] = True
    ids_BT, mask_BT, scored_BT = ids_BT.to(model.device), mask_BT.to(model.device), scored_BT.to(model.device)
    logits_BTV = model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits[:, :-1, :vocab_size]
    places_N = scored_BT[:, 1:].nonzero()[:, 0]
    logits_NV = logits_BTV[scored_BT[:, 1:]].float()
    chosen_N = logits_NV.gather(-1, ids_BT[:, 1:][scored_BT[:, 1:]][:, None]).squeeze(1) - logits_NV.logsumexp(-1)
    values: NDArray[np.float64] = torch.zeros(len(rows), dtype=torch.float64, device=model.device).index_add(
        0, places_N, chosen_N.double()
    ).cpu().numpy()  # fmt: skip
    return values
