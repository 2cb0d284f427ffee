"""Log-likelihood of each of many sequences: log P(letters), summed over their tokens, in nats.

A sequence is read as a document is in pretraining: BOS, which is given and never scored, then its tokens as the tokenizer cuts it; no
prompt. EOS is scored only if asked: a window of a genome does not end where it is cut. What is longer than `max_length` tokens is read in
windows that overlap by half, each token scored once (perplexity.py). The sum is that of the tokenizer's own segmentation: a changed letter
may change several tokens, and all of them count.

A text that was scored lately is not scored again: thousands of variants share one reference.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from llama_gene.errors import InputError
from llama_gene.inference.perplexity import cut_windows, score_windows
from llama_gene.inference.scoring import MAX_LOGITS, batches_by_length, context_length, inference_of
from llama_gene.tokenization.tokenizer import encode_batch

REMEMBERED_LETTERS = 1 << 24


@dataclass(frozen=True)
class Likelihood:
    """log P of one sequence."""

    nats: float
    """Natural logarithm of the probability: 0 or below."""
    tokens: int
    """Scored tokens."""
    windows: int

    def bits_per_letter(self, num_letters: int) -> float:
        """Return -log2 P / letters; nan without a letter."""
        return -self.nats / math.log(2) / num_letters if num_letters else math.nan


@dataclass
class LikelihoodScorer:
    """Scores texts with one model, and remembers those of the last `remembered_letters` letters."""

    model: PreTrainedModel
    tokenizer: Any
    max_length: int = 1024
    batch_tokens: int = 16384
    end: bool = False
    """Score EOS too: the texts are whole documents."""
    remembered_letters: int = REMEMBERED_LETTERS
    computed: int = 0
    """Texts that the model has read."""
    _known: OrderedDict[str, Likelihood] = field(default_factory=OrderedDict)
    _letters: int = 0

    def __post_init__(self) -> None:
        """Check that the model reads from left to right, and that EOS is there if it shall be scored. Raises InputError."""
        if self.end and self.tokenizer.eos_token_id is None:
            raise InputError("the tokenizer has no end-of-text token", "one, if `end` shall be scored", "Leave `end` out")
        if not is_causal(self.model, len(self.tokenizer)):
            raise InputError(
                f"a {type(self.model).__name__} looks at later tokens too: a product of its predictions is no likelihood",
                "a causal language model",
                "Such a model can be used with `llama-gene embed`",
            )
        self.max_length = min(self.max_length, context_length(self.model) or self.max_length)
        if self.max_length < 2:
            raise InputError(f"max_length is {self.max_length}", "at least 2 tokens", "Raise it")

    def score(self, texts: Sequence[str]) -> list[Likelihood]:
        """Return the likelihood of each text; the same text is computed once. A text's value does not depend on the others (law 8)."""
        wanted = dict.fromkeys(texts)
        found = {text: self._known[text] for text in wanted if text in self._known}
        new = [text for text in wanted if text not in found]
        found |= dict(zip(new, self._compute(new), strict=True))
        self._remember((text, found[text]) for text in wanted)
        return [found[text] for text in texts]

    def _compute(self, texts: Sequence[str]) -> list[Likelihood]:
        """Return the likelihood of each of some different texts."""
        tokenizer = self.tokenizer
        stop = [tokenizer.eos_token_id] if self.end else []
        start = [tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id]
        if start == [None]:
            raise InputError("the tokenizer has neither BOS nor EOS", "a token to begin with", "Set bos_token in its config")
        windows, owners = [], []
        for number, ids in enumerate(encode_batch(tokenizer, list(texts))):
            cut = list(cut_windows([*start, *ids, *stop], self.max_length))
            windows += cut
            owners += [number] * len(cut)
        nats, tokens, counts = [0.0] * len(texts), [0] * len(texts), [0] * len(texts)
        max_rows = max(1, MAX_LOGITS // (len(tokenizer) * self.max_length))
        with inference_of(self.model):
            for batch in batches_by_length([len(ids) for ids, _ in windows], self.batch_tokens, max_rows):
                for i, value in zip(batch, score_windows(self.model, [windows[i] for i in batch], len(tokenizer)), strict=True):
                    nats[owners[i]] -= value
        for (ids, num_context), owner in zip(windows, owners, strict=True):
            tokens[owner] += len(ids) - num_context
            counts[owner] += 1
        self.computed += len(texts)
        return [Likelihood(*values) for values in zip(nats, tokens, counts, strict=True)]

    def _remember(self, items: Iterable[tuple[str, Likelihood]]) -> None:
        """Keep what was used last, up to so many letters."""
        for text, value in items:
            if text not in self._known:
                self._letters += len(text)
            self._known[text] = value
            self._known.move_to_end(text)
        while self._letters > self.remembered_letters:
            self._letters -= len(self._known.popitem(last=False)[0])


def is_causal(model: Any, num_tokens: int) -> bool:
    """Return whether what a model says at a position is the same whatever comes later: asked of the model, not of its name."""
    first, *others = [i % num_tokens for i in (5, 7, 11, 13)]
    ids_BT = torch.tensor([[first, first, *others], [first, first, *reversed(others)]], device=model.device)
    with inference_of(model):
        output_BTX = model(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT))[0].float()
    return bool(torch.allclose(output_BTX[0, :2], output_BTX[1, :2], atol=1e-4, rtol=1e-3))
