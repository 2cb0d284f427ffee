"""Sketches of sequences, near-duplicate genomes and contained contigs."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gene.errors import ConfigError
from llama_gene.sequences.alphabet import reverse_complement
from llama_gene.sequences.records import read_records
from llama_gene.sequences.sketches import IDENTITY, KMER, Sketch, near_duplicates, repeat_reason, sketch
from tests.fixtures.tiny_vocabularies import DATA, needs_data


def random_dna(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("ACGT", k=length))


def mutated(text: str, share: float, seed: int) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice([other for other in "ACGT" if other != letter]) if rng.random() < share else letter for letter in text)


@settings(max_examples=60, deadline=None)
@given(st.text("ACGTacgtNRY", max_size=300))
def test_a_sketch_of_every_31_mer_has_one_hash_for_each_that_is_plain_on_either_strand(text: str) -> None:
    kmers = {text[start : start + KMER].upper() for start in range(len(text) - KMER + 1)}
    expected = {min(kmer, reverse_complement(kmer)) for kmer in kmers if set(kmer) <= set("ACGT")}
    assert len(sketch(text, scaled=1).hashes) == len(expected)


def test_a_sketch_holds_one_in_200_of_the_31_mers_ascending() -> None:
    hashes = sketch(random_dna(500_000, seed=1)).hashes
    assert hashes.tolist() == sorted(set(hashes.tolist())) and 2_300 < len(hashes) < 2_700


def test_both_strands_have_one_sketch() -> None:
    text = random_dna(20_000, seed=2)
    assert sketch(text).hashes.tolist() == sketch(reverse_complement(text)).hashes.tolist()


def test_rna_has_the_sketch_of_its_dna() -> None:
    text = random_dna(20_000, seed=2)
    assert sketch(text).hashes.tolist() == sketch(text.replace("T", "U").lower()).hashes.tolist()


def test_num_letters_leaves_out_n_and_iupac_codes() -> None:
    assert sketch("ACGTNNRYacgt").num_letters == 8


@pytest.mark.parametrize("text", ["", "ACGT", "N" * 100])
def test_a_sequence_without_31_plain_letters_has_an_empty_sketch(text: str) -> None:
    assert len(sketch(text, scaled=1).hashes) == 0


def test_copies_and_the_other_strand_repeat_the_first_of_them() -> None:
    text = random_dna(30_000, seed=3)
    other = random_dna(30_000, seed=4)
    sketches = [sketch(one) for one in (text, other, text, reverse_complement(text))]
    assert near_duplicates(sketches) == [None, None, 0, 0]


def test_a_contig_inside_a_genome_is_contained_on_either_strand_wherever_it_stands_in_the_list() -> None:
    genome = random_dna(100_000, seed=5)
    sketches = [sketch(one) for one in (genome[20_000:40_000], genome, reverse_complement(genome[60_000:75_000]))]
    assert near_duplicates(sketches) == [1, None, 1]
    assert [repeat_reason(sketches[row], sketches[1]) for row in (0, 2)] == ["contained", "contained"]


def test_a_complete_genome_is_kept_and_its_copy_with_gaps_is_dropped() -> None:
    genome = random_dna(40_000, seed=6)
    gappy = genome[:5_000] + "N" * 3_000 + genome[8_000:]
    sketches = [sketch(gappy), sketch(genome)]
    assert near_duplicates(sketches) == [1, None]
    assert repeat_reason(sketches[0], sketches[1]) == "near-identical"


@pytest.mark.parametrize(("share", "survivors"), [(0.30, 10), (0.05, 10), (0.01, 0)])
def test_mutants_of_30_and_5_percent_survive_and_of_1_percent_do_not(share: float, survivors: int) -> None:
    genome = random_dna(30_000, seed=7)
    found = near_duplicates([sketch(genome), *(sketch(mutated(genome, share, seed)) for seed in range(10))])
    assert found[0] is None and found.count(None) == 1 + survivors


def test_a_record_with_fewer_than_20_hashes_is_never_dropped() -> None:
    short = random_dna(2_000, seed=8)
    assert len(sketch(short).hashes) < 20
    assert near_duplicates([sketch(short), sketch(short)]) == [None, None]


def test_a_unique_record_with_the_satellite_of_a_longer_one_survives() -> None:
    satellite = random_dna(6_000, seed=10)
    records = [satellite * 30, satellite + random_dna(100_000, seed=11)]
    assert near_duplicates([sketch(text) for text in records]) == [None, None]


def test_ten_thousand_near_identical_genomes_leave_one() -> None:
    genome = sketch(random_dna(30_000, seed=9))
    assert near_duplicates([genome] * 10_000).count(None) == 1


def test_a_repeat_in_a_thousand_contigs_drops_none_of_them() -> None:
    rng = np.random.default_rng(0)
    family = rng.integers(0, 2**63, 10, dtype=np.uint64)
    contigs = [Sketch(np.unique(np.concatenate([family, rng.integers(0, 2**63, 40, dtype=np.uint64)])), 10_000) for _ in range(1_000)]
    assert near_duplicates(contigs).count(None) == 1_000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 60), max_size=40), max_size=12), st.sampled_from([0.97, 0.98, 0.99, 1.0]))
def test_near_duplicates_are_those_of_the_plain_greedy_rule(groups: list[set[int]], identity: float) -> None:
    sketches = [Sketch(np.array(sorted(group), dtype=np.uint64), 200 * len(group)) for group in groups]
    expected: list[int | None] = [None] * len(groups)
    kept: list[int] = []
    for row in sorted(range(len(groups)), key=lambda number: (-len(groups[number]), number)):
        shares = {}
        for other in kept:
            if len(groups[row]) >= 20 and len(groups[row] & groups[other]) / len(groups[row]) >= identity**KMER:
                shares[other] = len(groups[row] & groups[other]) / len(groups[row])
        expected[row] = min(shares, key=lambda other: (-shares[other], other)) if shares else None
        if not shares:
            kept.append(row)
    assert near_duplicates(sketches, identity) == expected


def test_no_records_have_no_duplicates() -> None:
    assert near_duplicates([]) == []


def test_scaled_below_1_is_refused() -> None:
    with pytest.raises(ConfigError, match="scaled 0; expected 1 or more"):
        sketch("ACGT", scaled=0)


@pytest.mark.parametrize("identity", [0.0, 1.5])
def test_an_identity_outside_0_to_1_is_refused(identity: float) -> None:
    with pytest.raises(ConfigError, match="above 0, at most 1"):
        near_duplicates([], identity)


@needs_data
def test_of_418_sars_cov_2_genomes_at_most_10_survive() -> None:
    records = read_records(Path(str(DATA)) / "genomes/sars-cov-2/example_418_genomes.fasta.xz")
    found = near_duplicates([sketch(record.sequence) for record in records])
    assert len(found) == 418 and found.count(None) <= 10


@needs_data
def test_e_coli_and_salmonella_both_survive() -> None:
    folder = Path(str(DATA)) / "genomes/bacteria"
    records = [
        record
        for name in ("escherichia_coli_K12_MG1655.fna.gz", "salmonella_enterica_LT2.fna.gz")
        for record in read_records(folder / name)
    ]
    assert near_duplicates([sketch(record.sequence) for record in records], IDENTITY) == [None, None, None]
