"""What one split shares with another, on planted rows."""

from __future__ import annotations

import random
from collections.abc import Sequence

from llama_gene.data.leaks import Indexed, Leak, Members, compare, report_of
from llama_gene.data.splits import SplitRows
from llama_gene.sequences.alphabet import reverse_complement
from llama_gene.sequences.shared_runs import RunIndex


def random_dna(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("ACGT", k=length))


def mutated(text: str, share: float, seed: int) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice("ACGT".replace(letter, "")) if rng.random() < share else letter for letter in text)


def random_protein(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("ACDEFGHIKLMNPQRSTVWY", k=length))


def split(name: str, rows: Sequence[tuple[str, ...]], kinds: tuple[str, ...] = ("dna",)) -> SplitRows:
    made = SplitRows("task", name, kinds)
    for number, row in enumerate(rows, start=1):
        made.add(row, (f"{name}.csv", number))
    return made


def leak(own: SplitRows, other: SplitRows, is_aligned: bool = False) -> Leak:
    kinds = sorted(set(own.kinds) & set(other.kinds))
    searched = [Members(other, kind) for kind in kinds]
    indexed = [Indexed(members, RunIndex(members.sequences, members.kind)) for members in searched]
    return compare([Members(own, kind) for kind in kinds], indexed, is_aligned, 2)


def test_each_relation_is_counted_under_its_own_name() -> None:
    row = [random_dna(120, seed) for seed in range(8)]
    test = split("test", [(text,) for text in row])
    train = split(
        "train",
        [
            (row[0],),
            (reverse_complement(row[1]),),
            (row[2][20:100],),
            (random_dna(40, 20) + row[3] + random_dna(40, 21),),
            (row[4][60:] + random_dna(60, 22),),
            (random_dna(30, 23) + row[5][30:90] + random_dna(30, 24),),
            (mutated(row[6], 0.1, 25),),
            (random_dna(120, 26),),
        ],
    )
    found = leak(train, test, is_aligned=True)
    assert found.relations == {"copy": 1, "reverse_complement": 1, "contained": 1, "contains": 1, "overlap": 2, "similar": 1}
    assert (found.rows, found.found) == (8, 7)


def test_law_14_planted_relatives_are_all_found_both_ways_round() -> None:
    rng = random.Random(0)
    parents = [random_dna(200, seed) for seed in range(300)]
    makers = [
        lambda text: text,
        reverse_complement,
        lambda text: text[50:120],
        lambda text: reverse_complement(text[10:80]),
        lambda text: text[120:] + random_dna(120, rng.randrange(10**9)),
        lambda text: random_dna(90, rng.randrange(10**9)) + reverse_complement(text[:60]),
    ]
    train, test = split("train", [(text,) for text in parents]), split("test", [(rng.choice(makers)(text),) for text in parents])
    assert leak(test, train).found == leak(train, test).found == 300


def test_mutants_of_a_thousand_other_rows_are_each_found_wherever_their_relative_stands() -> None:
    others = [random_dna(150, seed) for seed in range(1_500)]
    mutants = [mutated(others[number], 0.12, number) for number in range(0, 1_500, 50)]
    found = leak(split("test", [(text,) for text in mutants]), split("train", [(text,) for text in others]), is_aligned=True)
    assert found.found == 30 and found.relations.get("similar", 0) > 15


def test_unrelated_rows_share_nothing() -> None:
    train = split("train", [(random_dna(300, seed),) for seed in range(300)])
    assert leak(split("test", [(random_dna(300, 1000 + seed),) for seed in range(100)]), train).found == 0


def test_a_task_cut_out_of_another_stands_out_as_one_offset() -> None:
    long = [random_dna(300, seed) for seed in range(50)]
    cores = [text[216:286] for text in long[:40]] + [random_dna(70, 100)]
    found = leak(split("train", [(text,) for text in long]), split("dev", [(text,) for text in cores]))
    assert found.offsets == [{"strand": 1, "offset": 216, "rows": 40}]
    turned = leak(split("dev", [(text,) for text in cores]), split("train", [(text,) for text in long]))
    assert turned.offsets == [{"strand": 1, "offset": 216, "rows": 40}] and turned.relations == {"contained": 40}


def test_every_row_of_a_repeated_sequence_is_counted() -> None:
    text = random_dna(80, 1)
    assert leak(split("train", [(text,)] * 3), split("test", [(text,)])).relations == {"copy": 3}


def test_rows_shorter_than_a_run_are_found_as_copies_and_on_the_other_strand() -> None:
    first, second = random_dna(30, 1), random_dna(30, 2)
    found = leak(split("train", [(first,), (reverse_complement(second),)]), split("test", [(first,), (second,)]))
    assert found.relations == {"copy": 1, "reverse_complement": 1}


def test_a_pair_counts_when_either_protein_is_found() -> None:
    a, b, c, d = (random_protein(60, seed) for seed in range(4))
    kinds = ("protein", "protein")
    test = split("test", [(a, b), (b, c), (c, d)], kinds)
    found = leak(test, split("train", [(b, a), (random_protein(60, 9), c)], kinds))
    assert (found.found, found.all_members, found.same_pair) == (3, 2, 1)


def test_a_pair_of_dna_and_protein_is_compared_kind_by_kind() -> None:
    dna, protein = random_dna(150, 1), random_protein(50, 1)
    kinds = ("dna", "protein")
    test = split("test", [(dna, protein), (dna, random_protein(50, 2)), (random_dna(150, 3), random_protein(50, 3))], kinds)
    found = leak(test, split("train", [(reverse_complement(dna), protein)], kinds))
    assert found.relations == {"copy": 1, "reverse_complement": 1}
    assert (found.all_members, found.same_pair) == (1, 1)


def test_examples_name_rows_and_places() -> None:
    long = random_dna(300, 1)
    found = leak(split("train", [(random_dna(300, 2),), (long,)]), split("dev", [(reverse_complement(long[100:170]),)]))
    assert report_of(found)["examples"] == [
        {
            "relation": "contains",
            "row": ("train.csv", 2),
            "other": ("dev.csv", 1),
            "strand": -1,
            "position": 100,
            "other_position": 0,
            "length": 70,
        }
    ]
