"""Clusters and splits: law 14."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from llama_gene.errors import ConfigError
from llama_gene.sequences.alphabet import reverse_complement
from llama_gene.sequences.similarity import clusters, related_pairs, split_by_group

LETTERS = {"dna": "ACGT", "protein": "ACDEFGHIKLMNPQRSTVWY"}


def draw(rng: random.Random, kind: str, length: int) -> str:
    return "".join(rng.choices(LETTERS[kind], k=length))


def substitute(rng: random.Random, text: str, kind: str, rate: float) -> str:
    return "".join(rng.choice(LETTERS[kind].replace(old, "")) if rng.random() < rate else old for old in text)


def insert_and_delete(rng: random.Random, text: str, kind: str, rate: float) -> str:
    changed = ""
    for letter in text:
        chance = rng.random()
        changed += "" if chance < rate / 2 else letter + rng.choice(LETTERS[kind]) if chance > 1 - rate / 2 else letter
    return changed


def plants(rng: random.Random, kind: str) -> dict[str, Callable[[str], str]]:
    """Return name -> what makes a relative; the shares that must be found are in the tests."""
    makers = {
        "copy": lambda text: text.lower(),
        "substring": lambda text: text[len(text) // 4 : 3 * len(text) // 4],
        "shifted window": lambda text: text[2 * len(text) // 3 :] + draw(rng, kind, 2 * len(text) // 3),
        "90 % identity": lambda text: substitute(rng, text, kind, 0.1),
        "85 % identity": lambda text: substitute(rng, text, kind, 0.15),
        "80 % identity": lambda text: substitute(rng, text, kind, 0.2),
        "8 % substitutions, 2 % indels": lambda text: insert_and_delete(rng, substitute(rng, text, kind, 0.08), kind, 0.02),
    }
    if kind == "dna":
        makers["reverse complement"] = reverse_complement
        makers["reverse complement of 85 % identity"] = lambda text: reverse_complement(substitute(rng, text, kind, 0.15))
        makers["reverse complement of a shifted window"] = lambda text: reverse_complement(text[100:] + draw(rng, kind, 100))
    return makers


@pytest.mark.parametrize(("kind", "length"), [("dna", 300), ("protein", 150)])
def test_law_14_planted_relatives_never_straddle_a_split(kind: str, length: int) -> None:
    for seed, (name, make) in enumerate(plants(random.Random(7), kind).items()):
        rng = random.Random(seed)
        parents = [draw(rng, kind, length) for _ in range(150)]
        sequences = parents + [make(text) for text in parents[:50]]
        groups = clusters(sequences, kind)
        splits = split_by_group(groups, {"train": 0.7, "dev": 0.1, "test": 0.2}, seed=seed)
        straddling = [i for i in range(50) if splits[i] != splits[150 + i]]
        assert not straddling, f"{name}: {len(straddling)} of 50 relatives are not in the split of their parent"
        assert len(set(groups[:150])) == 150, f"{name}: unrelated sequences were joined"


def test_nine_in_ten_mutants_of_80_percent_and_150_bp_are_found() -> None:
    rng = random.Random(3)
    parents = [draw(rng, "dna", 150) for _ in range(300)]
    groups = clusters(parents + [substitute(rng, text, "dna", 0.2) for text in parents], "dna")
    assert sum(groups[i] == groups[300 + i] for i in range(300)) >= 270


@pytest.mark.parametrize("kind", ["dna", "protein"])
def test_unrelated_sequences_are_not_joined(kind: str) -> None:
    rng = random.Random(5)
    assert len(set(clusters([draw(rng, kind, 200) for _ in range(2000)], kind))) == 2000


def test_unrelated_sequences_of_skewed_composition_are_not_joined() -> None:
    rng = random.Random(6)
    skewed = ["".join(rng.choices("ACGT", [1, 4, 4, 1], k=200)) for _ in range(1000)]
    assert len(set(clusters(skewed, "dna"))) == 1000


def test_poly_a_and_microsatellites_join_nothing() -> None:
    rng = random.Random(8)
    sequences = [draw(rng, "dna", 80) + repeat for repeat in ("A" * 60, "CA" * 30, "GAT" * 20) for _ in range(30)]
    assert len(set(clusters(sequences, "dna"))) == 90
    assert len(set(clusters([draw(rng, "protein", 60) + "Q" * 30 for _ in range(50)], "protein"))) == 50


def test_a_family_larger_than_the_neighbour_limit_is_one_cluster() -> None:
    rng = random.Random(9)
    parent = draw(rng, "dna", 200)
    family = [substitute(rng, parent, "dna", 0.05) for _ in range(300)]
    groups = clusters([text for pair in zip(family, [draw(rng, "dna", 200) for _ in family], strict=True) for text in pair], "dna")
    assert sorted(Counter(groups).values()) == [1] * 300 + [300]


def test_relatives_of_relatives_join() -> None:
    rng = random.Random(10)
    genome = draw(rng, "dna", 1000)
    windows = [genome[start : start + 200] for start in range(0, 801, 100)]
    assert clusters([*windows, draw(rng, "dna", 200)], "dna") == [0] * 9 + [1]


def test_short_unknown_and_empty_sequences_join_their_copies_only() -> None:
    assert clusters(["ACG", "CGT", "", "NNNNNNNNNNNNNNNN", "acg", "TTT", ""], "dna") == [0, 0, 1, 2, 0, 3, 1]
    assert clusters(["MKV", "VKM", "MKV"], "protein") == [0, 1, 0]
    assert clusters([], "dna") == []
    assert related_pairs(["ACGT", "AAAA"], "dna") == []


def test_rna_has_two_strands() -> None:
    rng = random.Random(11)
    text = draw(rng, "dna", 100).replace("T", "U")
    assert clusters([text, reverse_complement(text, "rna")[10:]], "rna") == [0, 0]


def test_a_group_is_never_split_and_sizes_follow_the_fractions() -> None:
    rng = random.Random(12)
    groups = [rng.randrange(400) for _ in range(2000)]
    splits = split_by_group(groups, {"train": 0.8, "dev": 0.05, "test": 0.15}, seed=1)
    assert all(len({split for split, other in zip(splits, groups, strict=True) if other == group}) == 1 for group in set(groups))
    assert Counter(splits)["train"] == pytest.approx(1600, abs=5)
    assert Counter(splits)["test"] == pytest.approx(300, abs=5)
    assert splits == split_by_group(groups, {"train": 0.8, "dev": 0.05, "test": 0.15}, seed=1)
    assert splits != split_by_group(groups, {"train": 0.8, "dev": 0.05, "test": 0.15}, seed=2)


def test_a_split_of_fraction_zero_stays_empty() -> None:
    assert set(split_by_group(list(range(50)), {"train": 0.9, "dev": 0.0, "test": 0.1}, seed=0)) == {"train", "test"}


def test_fractions_must_add_up_to_one() -> None:
    with pytest.raises(ConfigError, match=r"add up to 0\.9"):
        split_by_group(["a"], {"train": 0.8, "test": 0.1}, seed=0)
