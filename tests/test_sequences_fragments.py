"""Fragments: law 13."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gene.errors import ConfigError
from llama_gene.sequences.fragments import FragmentCounts, fragment
from llama_gene.sequences.records import Record

CONTIGS = st.lists(st.text(alphabet="ACGTACGTACGTnN-", max_size=120), min_size=1, max_size=4)


@given(CONTIGS, st.integers(1, 12), st.integers(0, 20), st.one_of(st.none(), st.integers(0, 9)))
def test_law_13_no_window_crosses_a_contig_end_or_n_run_and_bases_are_conserved(
    contigs: list[str], min_length: int, extra: int, seed: int | None
) -> None:
    counts = FragmentCounts()
    rng = None if seed is None else random.Random(seed)
    num_kept = 0
    for contig in contigs:
        previous_end = 0
        for start, end, text in fragment(Record("c", "", contig), min_length, min_length + extra, rng, counts=counts):
            assert text == contig[start:end]  # inside one contig, at the place that it says
            assert not set(text) & set("Nn-")
            assert min_length <= len(text) <= min_length + extra
            assert start >= previous_end
            previous_end = end
            num_kept += len(text)
            assert counts.letters_read == counts.letters_kept + sum(counts.letters_rejected.values())
    assert counts.letters_kept == num_kept
    assert counts.letters_read == sum(map(len, contigs))
    assert counts.letters_read == counts.letters_kept + sum(counts.letters_rejected.values())


def test_only_stretches_shorter_than_min_length_are_lost() -> None:
    counts = FragmentCounts()
    tiles = list(fragment(Record("c", "", "A" * 2350 + "N" + "C" * 299), 300, 1000, random.Random(1), counts=counts))
    assert sum(end - start for start, end, _ in tiles) == 2350
    assert counts.letters_rejected == {"unknown": 1, "too_short": 299}


def test_the_same_seed_gives_the_same_tiles() -> None:
    record = Record("c", "", "ACGT" * 2000)
    first, second, other = (list(fragment(record, rng=random.Random(seed))) for seed in (1, 1, 2))
    assert first == second != other


def test_x_breaks_a_protein_and_n_does_not() -> None:
    assert list(fragment(Record("p", "", "MNNKXAAA"), 2, 9, kind="protein")) == [(0, 4, "MNNK"), (5, 8, "AAA")]


def test_lengths_that_contradict_each_other_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="min_length 5 and max_length 4"):
        fragment(Record("c", "", "ACGT"), 5, 4)
