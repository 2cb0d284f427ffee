"""A look at a corpus before it is made: the first documents of each language, cut into tokens, and where they lie in packed rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from llama_gene.data.corpus import source_paths
from llama_gene.data.documents import PartCounts, cut_record, read_part
from llama_gene.data.settings import SPLITS, UNDECIDED, Settings, Source
from llama_gene.sequences.alphabet import get_alphabet, write_letters
from llama_gene.sequences.records import Record
from llama_gene.sequences.sources import ENGLISH

SHOWN_LETTERS = 240
SHOWN_TOKENS = 60


def preview(
    sources: Sequence[Source], settings: Settings, data_dir: Path | None, seed: int, num_documents: int, tokenizer: str | None
) -> str:
    """Return the first documents of each source as they would be written (before repeats are looked for), for people to read.

    With a tokenizer (folder or name) each token is set between bars, and the documents' places in one packed row are given.
    """
    settings.check()
    encoder = None
    if tokenizer is not None:
        from llama_gene.tokenization.tokenizer import load_tokenizer

        encoder = load_tokenizer(tokenizer)
    lines = []
    for source in sources:
        source.check()
        paths = source_paths(source, data_dir)
        lines.append(f"== {source.language}: {', '.join(path.name for path in paths[:4])}{' ...' if len(paths) > 4 else ''}")
        place = 0
        for record, split, name, text in islice(_documents(source, paths, settings, seed), num_documents):
            side = "split by clusters" if split == UNDECIDED else SPLITS[split]
            lines.append(f"-- {name} ({side}; record {record.id}, {len(record.sequence):,} letters): {len(text):,} letters")
            written = text if source.alphabet_name == ENGLISH else write_letters(text, get_alphabet(source.alphabet_name))
            lines.append(_shortened(written, SHOWN_LETTERS))
            if encoder is not None:
                shown, num_tokens = _tokens(encoder, written)
                lines += [shown, f"   {num_tokens} tokens with BOS and EOS, at {place} to {place + num_tokens - 1} of the packed tokens"]
                place += num_tokens
    return "\n".join(lines)


def show_row(tokenizer: Any, row: Mapping[str, Any]) -> str:
    """Return a training row for people to read: stretches of tokens that carry loss stand in [[ ]], documents on lines of their own."""
    from llama_gene.data.packing import IGNORED, expand_row
    from llama_gene.tokenization.tokenizer import decode

    ids, labels, positions = expand_row(dict(row))
    special = set(tokenizer.all_special_ids)
    names = [
        tokenizer.convert_ids_to_tokens(number) if number in special else json.dumps(decode(tokenizer, [number]), ensure_ascii=False)[1:-1]
        for number in ids
    ]
    starts = [place for place, position in enumerate(positions) if position == 0]
    lines = []
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        text = ""
        for trains, places in groupby(range(start, end), key=lambda place: labels[place] != IGNORED):
            stretch = "|".join(names[place] for place in places)
            text += f"[[{stretch}]]" if trains else stretch
        trained = sum(label != IGNORED for label in labels[start:end])
        lines.append(f"-- {end - start} tokens, {trained} train\n{text}")
    return "\n".join(lines)


def _documents(source: Source, paths: list[Path], settings: Settings, seed: int) -> Iterator[tuple[Record, int, str, str]]:
    """Yield (record, split, id, text) of each document of a source."""
    counts = PartCounts()
    for record, rng in read_part(source, paths, seed, counts):
        for split, name, text in cut_record(record, source, settings, seed, rng, counts):
            yield record, split, name, text


def _tokens(tokenizer: Any, text: str) -> tuple[str, int]:
    """Return the first tokens between bars, and how many tokens the document has."""
    from llama_gene.tokenization.tokenizer import decode, encode_text

    ids = encode_text(tokenizer, text)
    num_specials = (tokenizer.bos_token_id is not None) + (tokenizer.eos_token_id is not None)
    pieces = [json.dumps(decode(tokenizer, [number]), ensure_ascii=False)[1:-1] for number in ids[:SHOWN_TOKENS]]
    more = f" ... {len(ids) - SHOWN_TOKENS} more" if len(ids) > SHOWN_TOKENS else ""
    return f"|{'|'.join(pieces)}|{more}", len(ids) + num_specials


def _shortened(text: str, length: int) -> str:
    """Return the beginning of a text on one line."""
    head = json.dumps(text[:length], ensure_ascii=False)[1:-1]
    return f"{head} ..." if len(text) > length else head
