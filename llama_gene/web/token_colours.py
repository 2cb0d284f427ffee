"""A sequence coloured by token: which letters the model reads as one, drawn as HTML in numbered lines.

The tokens are those of the whole prompt, not of the sequence by itself: a token may reach across the seam between the words and the
sequence. Each id stands for a known number of bytes (`token_bytes`), so adding them up says where each token lies in the prompt, and the
sequence's part of it is cut out. Neighbours have different colours; the colours have no other meaning. A token's id and place are in its
tooltip. Everything that comes from a user is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_gene.tokenization.tokenizer import encode_text, token_bytes

LINE_LETTERS = 60  # as in a GenBank record
MAX_DRAWN = 6_000  # letters of one sequence that are drawn: a browser is slow with more marks than this; the model reads all of it
NUM_COLOURS = 4

STYLE = """
.tokens { font: 13px/1.9 ui-monospace, "DejaVu Sans Mono", Consolas, monospace; overflow-x: auto; margin: .3rem 0 .8rem; }
.tokens div { white-space: pre; }
.tokens .at { display: inline-block; width: 4.2rem; padding-right: .8rem; text-align: right; color: #6b7280; user-select: none; }
.tokens .t { color: #111827; padding: 2px 0; }
.tokens .c0 { background: #cfe3f5; } .tokens .c1 { background: #fbe3c0; }
.tokens .c2 { background: #d5ecd0; } .tokens .c3 { background: #ead6f0; }
"""


@dataclass(frozen=True)
class TokenSpan:
    """The letters of a sequence that one token covers: from `start` up to, not including, `stop`, both counted from 0."""

    start: int
    stop: int
    token: int


class TokenMap:
    """Where the tokens of a tokenizer lie on a text."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._sizes: NDArray[np.int32] = token_bytes(tokenizer)  # of every id: counted once, 188,416 of them take a moment

    def spans(self, prompt: str, sequence: str, after: int = 0) -> list[TokenSpan]:
        """Return the tokens of `sequence`, which stands in `prompt` at or behind character `after`.

        Returns an empty list where the tokens do not add up to the text (a normalizer changes it) or the sequence is not found.

        >>> from tokenizers import Tokenizer, models, decoders
        >>> from transformers import PreTrainedTokenizerFast
        >>> bpe = Tokenizer(models.BPE({"A": 0, "C": 1, ":": 2, "AC": 3}, [("A", "C")]))
        >>> bpe.decoder = decoders.ByteLevel()
        >>> TokenMap(PreTrainedTokenizerFast(tokenizer_object=bpe)).spans(":ACA", "ACA")
        [TokenSpan(start=0, stop=2, token=3), TokenSpan(start=2, stop=3, token=0)]
        """
        found = prompt.find(sequence, after)
        if found < 0 or not sequence.isascii():
            return []
        first = len(prompt[:found].encode())
        ids = encode_text(self.tokenizer, prompt)
        ends = np.cumsum(self._sizes[ids])
        extra = int(ends[-1]) - len(prompt.encode()) if len(ids) else -1
        if extra not in (0, 1):  # 1: SentencePiece puts a space before a text
            return []
        stops = np.clip(ends - extra - first, 0, len(sequence)).tolist()
        return [TokenSpan(start, stop, token) for start, stop, token in zip([0, *stops[:-1]], stops, ids, strict=True) if stop > start]


def draw_tokens(sequence: str, spans: Sequence[TokenSpan], kind: str) -> str:
    """Return a sequence as HTML, its tokens in colours, with a line of counts above it."""
    unit = "residues" if kind == "protein" else "letters"
    if not spans:
        head = f"{len(sequence):,} {unit}; this tokenizer changes the text, so its tokens cannot be placed on it"
        spans = [TokenSpan(0, len(sequence), -1)]
    else:
        head = f"{len(sequence):,} {unit} in {len(spans):,} tokens, {len(sequence) / len(spans):.1f} {unit} a token"
    if len(sequence) > MAX_DRAWN:
        head += f"; the first {MAX_DRAWN:,} are drawn, the model reads all"
    lines = [_line(sequence, spans, start) for start in range(0, min(len(sequence), MAX_DRAWN), LINE_LETTERS)]
    return f'<p class="counts">{escape(head)}</p><div class="tokens">{"".join(lines)}</div>'


def _line(sequence: str, spans: Sequence[TokenSpan], start: int) -> str:
    """Return one line: the number of its first letter, counted from 1, and the parts of tokens that lie in it."""
    stop = min(start + LINE_LETTERS, len(sequence), MAX_DRAWN)
    parts = [f'<span class="at">{start + 1:,}</span>']
    first = int(np.searchsorted([span.stop for span in spans], start, side="right"))
    for number, span in enumerate(spans[first:], start=first):
        if span.start >= stop:
            break
        letters = escape(sequence[max(span.start, start) : min(span.stop, stop)])
        colour = f"c{number % NUM_COLOURS}" if span.token >= 0 else ""
        piece = escape(sequence[span.start : span.stop][:40], quote=True)
        title = f"{piece} · letters {span.start + 1:,} to {span.stop:,} · token id {span.token}" if span.token >= 0 else ""
        parts.append(f'<span class="t {colour}" title="{title}">{letters}</span>')
    return f"<div>{''.join(parts)}</div>"
