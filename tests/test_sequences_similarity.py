"""Clusters and splits: law 14."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gene.errors import ConfigError
from llama_gene.sequences.alphabet import reverse_complement
from llama_gene.sequences.similarity import FIELD_THRESHOLDS, Relative, Thresholds, clusters, find_relatives, related_pairs, split_by_group
from tests.fixtures.tiny_vocabularies import proteins

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


def mutant(rng: random.Random, text: str, changes: int, indels: int) -> str:
    """Return DNA with exactly so many changes, of them so many single letters lost or gained."""
    letters = list(text)
    for number, place in enumerate(rng.sample(range(len(text)), changes)):
        if number >= indels:
            letters[place] = rng.choice("ACGT".replace(text[place], ""))
        else:
            letters[place] = "" if number % 2 else letters[place] + rng.choice("ACGT")
    return "".join(letters)


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
        makers["80 % identity with indels"] = lambda text: mutant(rng, text, len(text) // 5, len(text) // 20)
        makers["reverse complement of 80 % identity with indels"] = lambda text: reverse_complement(
            mutant(rng, text, len(text) // 5, len(text) // 20)
        )
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
        by_chance = 150 - len(set(groups[:150]))
        assert by_chance <= {"dna": 0, "protein": 8}[kind], f"{name}: {by_chance} unrelated sequences were joined"


@pytest.mark.parametrize("indels", [0, 8, 15])
def test_law_14_every_mutant_of_80_percent_and_150_bp_is_found_on_either_strand(indels: int) -> None:
    rng = random.Random(3)
    parents = [draw(rng, "dna", 150) for _ in range(300)]
    children = [mutant(rng, text, 30, indels) for text in parents]
    children = [reverse_complement(text) if number % 2 else text for number, text in enumerate(children)]
    groups = clusters(parents + children, "dna")
    assert [i for i in range(300) if groups[i] != groups[300 + i]] == []
    assert len(set(groups)) == 300


def test_every_protein_of_35_percent_identity_and_120_residues_is_found() -> None:
    rng = random.Random(4)
    similar = {"A": "SGV", "R": "KQ", "N": "DSH", "D": "EN", "C": "AS", "Q": "EKR", "E": "DQK", "G": "AS", "H": "NYQ", "I": "VLM"}
    similar |= {"L": "IMV", "K": "RQE", "M": "LIV", "F": "YLW", "P": "AS", "S": "TAN", "T": "SVA", "W": "YF", "Y": "FHW", "V": "ILA"}
    parents = [draw(rng, "protein", 120) for _ in range(200)]
    children = []
    for text in parents:  # 35 % kept, 35 % changed to a like residue, 30 % to any
        kinds = rng.sample([0] * 42 + [1] * 42 + [2] * 36, 120)
        children.append(
            "".join((old, rng.choice(similar[old]), rng.choice(LETTERS["protein"]))[kind] for old, kind in zip(text, kinds, strict=True))
        )
    groups = clusters(parents + children, "protein")
    assert [i for i in range(200) if groups[i] != groups[200 + i]] == []
    assert len(set(groups)) >= 200 - 400 / 50


def test_clusters_find_short_homologues_that_the_list_leaves_and_join_few_strangers() -> None:
    rng = random.Random(5)
    parents = [draw(rng, "protein", 75) for _ in range(300)]
    children = [substitute(rng, text, "protein", 0.58) for text in parents]  # 42 % identity, changed at random
    strangers = [draw(rng, "protein", 200) for _ in range(400)]
    sequences = parents + children + strangers
    groups = clusters(sequences, "protein")
    listed = {(relative.first, relative.second) for relative in find_relatives(sequences, "protein")}
    together = sum(groups[number] == groups[300 + number] for number in range(300))
    assert together >= 270 > 1.2 * sum((number, 300 + number) in listed for number in range(300))
    assert len(set(groups[:300] + groups[600:])) >= 700 - 1000 / 50


def test_proteins_of_shared_motifs_are_not_joined_to_one_cluster_by_chance() -> None:
    sequences = proteins(60, 120)
    assert len(set(clusters(sequences, "protein", thresholds=Thresholds(expected=60 / 50)))) == 1
    assert clusters(sequences, "protein") == clusters(sequences, "protein", thresholds=Thresholds())
    assert len(set(clusters(sequences, "protein"))) > 40


TEXT = "GATTCCGAACGTAAGCTTACGGATACCATGCGTTAGCCAATCGGTACTTGCAGTCAAGGCTATCCGAGTTCACGATGCCTTAACGGTCATGC"  # 92 bp, no repeats
OTHER = "TTAGGCGCATCAGTTACGCCTGAACTCGGATTACCGTAGCAATGTCCGCTAAGTCGACTTGAC"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (TEXT, TEXT.lower(), Relative(0, 1, 1, 1.0, 92, 1.0, 1.0, "copy")),
        (TEXT, reverse_complement(TEXT), Relative(0, 1, -1, 1.0, 92, 1.0, 1.0, "reverse_complement")),
        (TEXT, TEXT[20:66], Relative(0, 1, 1, 1.0, 46, 0.5, 1.0, "contained")),
        (reverse_complement(TEXT[:46]), TEXT, Relative(0, 1, -1, 1.0, 46, 1.0, 0.5, "contained")),
        (TEXT, TEXT[46:] + OTHER[:46], Relative(0, 1, 1, 1.0, 46, 0.5, 0.5, "overlap")),
        (TEXT, reverse_complement(TEXT[46:]) + OTHER[3:49], Relative(0, 1, -1, 1.0, 46, 0.5, 0.5, "overlap")),
        (TEXT, TEXT[:46] + OTHER[:46], Relative(0, 1, 1, 1.0, 46, 0.5, 0.5, "overlap")),
        (TEXT, TEXT[:40] + "A" + TEXT[41:], Relative(0, 1, 1, 91 / 92, 92, 1.0, 1.0, "similar")),
        (TEXT, TEXT[:45] + TEXT[46:], Relative(0, 1, 1, 91 / 92, 92, 1.0, 1.0, "similar")),
    ],
    ids=["copy", "other strand", "contained", "contained, other strand", "overlap", "overlap, other strand", "same start", "change", "gap"],
)
def test_a_relative_has_its_relation_identity_and_coverage(first: str, second: str, expected: Relative) -> None:
    assert find_relatives([first, second], "dna") == [expected]


def test_between_two_sets_only_pairs_across_them_are_listed() -> None:
    rng = random.Random(14)
    train = [draw(rng, "dna", 200) for _ in range(40)]
    train += [train[0], train[1]]
    test = [draw(rng, "dna", 200), reverse_complement(train[7]), train[1], mutant(rng, train[9], 30, 8), train[1].lower()]
    found = [
        (relative.first, relative.second, relative.strand, relative.relation) for relative in find_relatives(train, "dna", others=test)
    ]
    assert found == [
        (1, 2, 1, "copy"),
        (1, 4, 1, "copy"),
        (7, 1, -1, "reverse_complement"),
        (9, 3, 1, "similar"),
        (41, 2, 1, "copy"),
    ]


def test_of_equal_sequences_each_is_listed_with_the_first() -> None:
    found = find_relatives([TEXT, OTHER, TEXT, TEXT, TEXT[20:66]], "dna")
    assert [(r.first, r.second, r.relation) for r in found] == [
        (0, 2, "copy"), (0, 3, "copy"), (0, 4, "contained"), (2, 4, "contained"), (3, 4, "contained"),
    ]  # fmt: skip


def test_a_bucket_that_is_too_large_hides_no_sequence_of_the_other_set() -> None:
    rng = random.Random(15)
    parent = draw(rng, "dna", 200)
    test = [mutant(rng, parent, 10, 0) for _ in range(600)]
    assert {relative.second for relative in find_relatives([parent], "dna", others=test)} == set(range(600))


def test_the_thresholds_of_the_field_need_most_of_both_sequences() -> None:
    pair = [TEXT, TEXT[20:66]]
    assert clusters(pair, "dna") == [0, 0]
    assert clusters(pair, "dna", thresholds=FIELD_THRESHOLDS["dna"]) == [0, 1]
    assert find_relatives([TEXT, TEXT[5:]], "dna", thresholds=FIELD_THRESHOLDS["dna"])[0].relation == "contained"


@pytest.mark.parametrize(
    ("values", "message"), [({"expected": 0.0}, "expected: 0"), ({"identity": 30.0}, "identity: 30"), ({"coverage": -1.0}, "-1")]
)
def test_thresholds_outside_their_range_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Thresholds(**values)


@pytest.mark.parametrize("kind", ["dna", "protein"])
def test_unrelated_sequences_are_not_joined(kind: str) -> None:
    rng = random.Random(5)
    assert len(set(clusters([draw(rng, kind, 200) for _ in range(2000)], kind, thresholds=Thresholds()))) == 2000


def test_unrelated_sequences_of_skewed_composition_are_not_joined() -> None:
    rng = random.Random(6)
    for weights in ([1, 4, 4, 1], [14, 14, 58, 14]):
        skewed = ["".join(rng.choices("ACGT", weights, k=200)) for _ in range(1000)]
        assert len(set(clusters(skewed, "dna"))) == 1000


def test_unrelated_sequences_of_two_compositions_are_not_joined() -> None:
    rng = random.Random(16)
    mixed = ["".join(rng.choices("ACGT", weights, k=200)) for weights in ([1, 5, 5, 1], [5, 1, 1, 5]) for _ in range(200)]
    assert len(set(clusters(mixed, "dna"))) == 400
    residues = ["".join(rng.choices("LAVEKG", k=120)) for _ in range(60)] + [draw(rng, "protein", 120) for _ in range(140)]
    assert len(set(clusters(residues, "protein"))) == 200


def test_poly_a_and_microsatellites_join_nothing() -> None:
    rng = random.Random(8)
    sequences = [draw(rng, "dna", 80) + repeat for repeat in ("A" * 60, "CA" * 30, "GAT" * 20) for _ in range(30)]
    assert len(set(clusters(sequences, "dna"))) == 90
    assert len(set(clusters([draw(rng, "protein", 60) + "Q" * 30 for _ in range(50)], "protein", thresholds=Thresholds()))) == 50


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


def test_one_long_sequence_holds_short_ones() -> None:
    rng = random.Random(17)
    genome = draw(rng, "dna", 10_000)
    short = [genome[5000:5060], reverse_complement(mutant(rng, genome[300:450], 30, 8)), draw(rng, "dna", 100)]
    found = find_relatives([genome, *short], "dna")
    assert [(r.first, r.second, r.strand, r.relation) for r in found] == [(0, 1, 1, "contained"), (0, 2, -1, "similar")]


def test_unknown_letters_are_no_evidence() -> None:
    rng = random.Random(18)
    assert len(set(clusters([draw(rng, "dna", 40) + "N" * 100 + draw(rng, "dna", 40) for _ in range(20)], "dna"))) == 20
    assert clusters([TEXT[:40] + "N" + TEXT[41:], TEXT[:60] + "R" + TEXT[61:]], "dna") == [0, 0]


@pytest.mark.parametrize("kind", ["3di", "ss3"])
def test_structure_letters_have_relatives_too(kind: str) -> None:
    rng = random.Random(19)
    letters = {"3di": LETTERS["protein"], "ss3": "HEC"}[kind]
    sequences = ["".join(rng.choices(letters, k=200)) for _ in range(60)]
    assert clusters([*sequences, sequences[3][50:]], kind) == [*range(60), 3]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("ACGTacgtN", max_size=60), max_size=8), st.integers(0, 10**6))
def test_the_strand_of_a_sequence_changes_no_cluster_and_every_field_is_in_range(texts: list[str], seed: int) -> None:
    rng = random.Random(seed)
    texts = texts + [text[len(text) // 3 :] for text in texts]
    turned = [reverse_complement(text) if rng.random() < 0.5 else text for text in texts]
    assert clusters(texts, "dna") == clusters(turned, "dna")
    groups = clusters(texts, "dna")
    for relative in find_relatives(texts, "dna"):
        assert 0 <= relative.first < relative.second < len(texts)
        assert groups[relative.first] == groups[relative.second]
        assert 0 <= relative.identity <= 1 and 0 < relative.coverage_first <= 1 and 0 < relative.coverage_second <= 1


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
