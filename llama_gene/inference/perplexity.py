"""Bits per letter of held-out documents: what a language model has learned, in a unit that no vocabulary can bend.

Perplexity per token grows with the vocabulary's piece length, so it cannot compare a model with its base. Bits per base, per residue
or per UTF-8 byte can: -sum(log2 p(token)) / number of letters. BOS is given, never scored (a tokenizer without one, GPT-2's, gives EOS, its
document separator); the EOS that closes a document is scored, so that a model pays for knowing where genes end.

A document longer than `max_length` tokens is read in windows that overlap by half. Every token is scored exactly once, in the first
window that holds it: all of the first window, then the second half of each window, so each later token sees at least
max_length / 2 tokens before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from llama_gene.errors import InputError
from llama_gene.inference.scoring import MAX_LOGITS, batches_by_length, inference_of
from llama_gene.tokenization.tokenizer import encode_batch

Unit = Literal["letter", "byte"]


def bits_per_letter(
    model: PreTrainedModel,
    tokenizer: Any,
    documents: Sequence[str],
    max_length: int = 1024,
    batch_tokens: int = 16384,
    unit: Unit = "letter",
    progress: bool = False,
) -> dict[str, float]:
    """Return {"bits_per_letter", "bits", "letters", "bytes", "tokens"} over all documents together.

    `unit` says what the bits are divided by: "letter" for bases and residues, "byte" for English (UTF-8). "tokens" counts the scored
    tokens, one EOS a document among them. Raises InputError when there is no letter to score.
    """
    letters, size = sum(len(text) for text in documents), sum(len(text.encode("utf-8", "surrogatepass")) for text in documents)
    if not letters:
        raise InputError("no letter in the documents", "at least one document with text", "Check the corpus folder")
    windows = list(_windows(tokenizer, documents, max_length))
    max_rows = max(1, MAX_LOGITS // (len(tokenizer) * max_length))
    nats, tokens = 0.0, 0
    lengths = [len(ids) for ids, _ in windows]
    with inference_of(model), tqdm(total=len(windows), desc="bits per letter", unit="window", disable=not progress) as bar:
        for batch in batches_by_length(lengths, batch_tokens, max_rows):
            scored = score_windows(model, [windows[i] for i in batch], len(tokenizer))
            nats, tokens = nats + sum(scored), tokens + sum(len(windows[i][0]) - windows[i][1] for i in batch)
            bar.update(len(batch))
    bits = nats / math.log(2)
    return {
        "bits_per_letter": bits / (letters if unit == "letter" else size),
        "bits": bits,
        "letters": letters,
        "bytes": size,
        "tokens": tokens,
    }


def _windows(tokenizer: Any, documents: Sequence[str], max_length: int) -> Iterator[tuple[list[int], int]]:
    """Yield (ids, number of leading ids that are context only) such that each token of each document is scored once."""
    stop = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else stop
    for text_ids in encode_batch(tokenizer, list(documents)):
        yield from cut_windows([*start, *text_ids, *stop], max_length)


def cut_windows(ids: list[int], max_length: int) -> Iterator[tuple[list[int], int]]:
    """Yield (ids, number of leading ids that are context only) of one text, its first id context: each other id is scored once."""
    step = max(1, max_length // 2)
    yield ids[:max_length], 1
    end = max_length
    while end < len(ids):
        new_end = min(end + step, len(ids))
        begin = new_end - max_length
        yield ids[begin:new_end], end - begin
        end = new_end


def score_windows(model: PreTrainedModel, windows: Sequence[tuple[list[int], int]], num_tokens: int) -> list[float]:
    """Return the nats of each window of a batch; right-padded, so causal attention alone keeps padding out."""
    width = max(len(ids) for ids, _ in windows)
    ids_BT = torch.zeros(len(windows), width, dtype=torch.long)
    mask_BT = torch.zeros(len(windows), width, dtype=torch.long)
    scored_BT = torch.zeros(len(windows), width, dtype=torch.bool)
    for b, (ids, num_context) in enumerate(windows):
        ids_BT[b, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        mask_BT[b, : len(ids)] = 1
        scored_BT[b, num_context : len(ids)] = True
    ids_BT, mask_BT, scored_BT = ids_BT.to(model.device), mask_BT.to(model.device), scored_BT.to(model.device)
    logits_BTV = model(input_ids=ids_BT, attention_mask=mask_BT, position_ids=(mask_BT.cumsum(-1) - 1).clamp(min=0), use_cache=False).logits
    logits_NV = logits_BTV[:, :-1][scored_BT[:, 1:]][:, :num_tokens].float()  # only scored positions are widened to float32
    losses_N = torch.nn.functional.cross_entropy(logits_NV, ids_BT[:, 1:][scored_BT[:, 1:]], reduction="none").double()
    return [float(losses.sum()) for losses in losses_N.split(scored_BT[:, 1:].sum(1).tolist())]
