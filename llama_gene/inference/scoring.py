"""Log-likelihood of every allowed label as the answer to a prompt: such an answer can never be off the list.

B rows of a batch, T tokens of the longest prompt, L tokens of the longest label, V vocabulary, N prompts, K labels.

1. Run each prompt *without its last token* once and keep its keys and values (the cache).
2. For each label run [last prompt token + label without its last token] on the cache: these L positions give exactly the
   distributions of the label's L tokens. Take the float32 log-softmax there, pick the label's tokens, sum.
3. Crop the cache back to the prompt and take the next label.

A prompt costs T + K L tokens instead of K (T + L), and logits exist only at label positions: (B, L, V), never (B, T, V), which at
a vocabulary of 188,416 would be 750 MB for one row of 1,000 tokens.

Rows are padded on the *left*, with explicit mask and positions: then the cached prompt and the label are adjacent columns. Padding
between them would be masked as well, but models with a sliding window (Mistral, Gemma) measure distance in columns, so their
scores would depend on the batch mates (law 8).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import DynamicCache, PreTrainedModel

from llama_gene.errors import InputError
from llama_gene.models.states import keeps_a_state

MAX_LOGITS = 2**27  # float32 numbers in one batch's logits: 512 MiB
SharedLabels = Sequence[Sequence[int]]
LabelsPerPrompt = Sequence[Sequence[Sequence[int]]]


def score_labels(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    labels: SharedLabels | LabelsPerPrompt,
    batch_tokens: int = 16384,
    vocab_size: int | None = None,
    progress: bool = False,
) -> NDArray[np.float64]:
    """Return the summed log-likelihood in nats of each label given each prompt, shape (N, K).

    `labels` holds the token ids of K labels, the same for every prompt, or one such list for each prompt (rows with fewer labels
    are filled with -inf). Labels should end with EOS: only then is "EC 1.1" told apart from "EC 1.1.2". `vocab_size` is the number
    of real tokens, len(tokenizer): embedding rows beyond it are padding and get no probability. `batch_tokens` bounds the tokens of
    a batch (padding included). Works with a transformers causal model and with a PeftModel around one.

    Raises InputError when a prompt or a label is empty, or a prompt with its longest label exceeds the model's context.
    """
    rows = _labels_per_prompt(labels, len(prompts))
    num_labels = max((len(row) for row in rows), default=0)
    longest = [max((len(label) for label in row), default=0) for row in rows]
    _check(prompts, rows, longest, context_length(model))
    if keeps_a_state(model):
        from llama_gene.inference.whole_rows import score_whole_rows  # which takes its batches from here

        return score_whole_rows(model, prompts, rows, batch_tokens, vocab_size or _num_columns(model), progress)
    scores = np.full((len(prompts), num_labels), -np.inf)
    width = vocab_size or _num_columns(model)
    lengths = [len(prompt) + extra for prompt, extra in zip(prompts, longest, strict=True)]
    max_rows = max(1, MAX_LOGITS // (width * max(longest, default=1)))
    with inference_of(model), tqdm(total=len(prompts), desc="scoring", unit="prompt", disable=not progress) as bar:
        for batch in batches_by_length(lengths, batch_tokens, max_rows):
            prefix = read_prompts(model, [prompts[i] for i in batch], croppable=True)
            for k in range(num_labels):
                members = [(b, i) for b, i in enumerate(batch) if k < len(rows[i])]
                if members:  # a row without a k-th label runs its first one along; the result is not used
                    values = _score_on(model, prefix, [rows[i][k] if k < len(rows[i]) else rows[i][0] for i in batch], vocab_size)
                    for b, i in members:
                        scores[i, k] = values[b]
            bar.update(len(batch))
    return scores


@dataclass
class Prefix:
    """A batch of prompts that the model has read but for their last tokens."""

    cache: DynamicCache
    mask_BT: torch.Tensor
    """1 where a column of the cache holds a token, 0 where it holds padding."""
    lengths_B: torch.Tensor
    """Tokens of each row in the cache: the position of the token that comes next."""
    last_B: torch.Tensor
    """The last token of each prompt: the next to feed."""


def read_prompts(model: PreTrainedModel, prompts: Sequence[Sequence[int]], croppable: bool = False) -> Prefix:
    """Run prompts, left-padded, without their last tokens. `croppable` keeps what a sliding-window cache would forget."""
    device = model.device
    cache = DynamicCache(config=model.config)
    if croppable:
        cache.activate_past_recording()
    lengths_B = torch.tensor([len(prompt) - 1 for prompt in prompts])
    width = int(lengths_B.max())
    ids_BT = torch.zeros(len(prompts), width, dtype=torch.long)
    for b, prompt in enumerate(prompts):
        ids_BT[b, width - len(prompt) + 1 :] = torch.tensor(prompt[:-1], dtype=torch.long)
    mask_BT = (torch.arange(width) >= width - lengths_B[:, None]).long().to(device)
    last_B = torch.tensor([prompt[-1] for prompt in prompts], device=device)
    if width:
        positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
        model(
            input_ids=ids_BT.to(device),
            attention_mask=mask_BT,
            position_ids=positions_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,  # the last position's logits are not needed either, but 0 would mean all of them
        )
        if croppable:
            cache.crop(0)
    return Prefix(cache, mask_BT, lengths_B.to(device), last_B)


def _score_on(model: PreTrainedModel, prefix: Prefix, labels: Sequence[Sequence[int]], vocab_size: int | None) -> NDArray[np.float64]:
    """Return one label's log-likelihood for each row of a prefix, shape (B,); the cache is left as it was found."""
    device = prefix.last_B.device
    width = max(len(label) for label in labels)
    targets_BL = torch.zeros(len(labels), width, dtype=torch.long)
    mask_BL = torch.zeros(len(labels), width, dtype=torch.long)
    for b, label in enumerate(labels):
        targets_BL[b, : len(label)] = torch.tensor(label, dtype=torch.long)
        mask_BL[b, : len(label)] = 1
    targets_BL, mask_BL = targets_BL.to(device), mask_BL.to(device)
    steps_L = torch.arange(width, device=device)
    last_step_B1 = mask_BL.sum(-1, keepdim=True) - 1
    logits_BLV = model(
        input_ids=torch.cat([prefix.last_B[:, None], targets_BL[:, :-1]], dim=1),
        attention_mask=torch.cat([prefix.mask_BT, mask_BL], dim=1),
        position_ids=prefix.lengths_B[:, None] + torch.minimum(steps_L, last_step_B1),  # padding never reaches past the context
        past_key_values=prefix.cache,
        use_cache=True,
    ).logits[..., :vocab_size]
    prefix.cache.crop(-width)
    logits_BLV = logits_BLV.float()
    chosen_BL = logits_BLV.gather(-1, targets_BL[..., None]).squeeze(-1) - logits_BLV.logsumexp(-1)
    values: NDArray[np.float64] = (chosen_BL.double() * mask_BL).sum(-1).cpu().numpy()
    return values


def batches_by_length(lengths: Sequence[int], batch_tokens: int, max_rows: int | None = None) -> Iterator[list[int]]:
    """Yield batches of row numbers, longest rows first, each at most `batch_tokens` with its padding (one row at least).

    >>> list(batches_by_length([2, 9, 3, 8], batch_tokens=18))
    [[1, 3], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        num_rows = max(1, batch_tokens // max(1, lengths[order[start]]))
        stop = start + min(num_rows, max_rows or num_rows)
        yield order[start:stop]
        start = stop


@contextmanager
def inference_of(model: PreTrainedModel) -> Iterator[None]:
    """Run a block without dropout and gradients; the model's training mode is put back after it."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def context_length(model: PreTrainedModel) -> int | None:
    """Return how many tokens the model can read, None if its config sets no limit."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return int(limit) if limit and limit > 0 else None


def _num_columns(model: PreTrainedModel) -> int:
    """Return the number of logits of a position."""
    head = model.get_output_embeddings()
    return int(head.weight.shape[0]) if head is not None else int(model.config.vocab_size)


def _labels_per_prompt(labels: SharedLabels | LabelsPerPrompt, num_prompts: int) -> list[Sequence[Sequence[int]]]:
    """Give each prompt its own list of labels."""
    is_shared = all(isinstance(token, int) for label in labels for token in label)
    rows: list[Sequence[Sequence[int]]] = [labels] * num_prompts if is_shared else list(labels)  # type: ignore[list-item, arg-type]
    if len(rows) != num_prompts:
        raise InputError(f"{len(rows)} lists of labels for {num_prompts} prompts", "one list for each prompt")
    return rows


def _check(prompts: Sequence[Sequence[int]], rows: Sequence[Sequence[Sequence[int]]], longest: Sequence[int], limit: int | None) -> None:
    """Raise InputError for what has no score."""
    for i, (prompt, row, extra) in enumerate(zip(prompts, rows, longest, strict=True)):
        if not prompt:
            raise InputError(f"prompt {i} has no token", "at least one", "Give the tokenizer's BOS or some text")
        if not row or any(not label for label in row):
            raise InputError(f"prompt {i} has no label or a label without a token", "labels of at least one token (EOS)")
        if limit is not None and len(prompt) + extra > limit:
            raise InputError(
                f"prompt {i} and its longest label have {len(prompt) + extra} tokens",
                f"at most the model's {limit}",
                "Leave the prompt out or shorten its sequence",
            )
