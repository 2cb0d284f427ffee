"""Conform or not: a gene's fragment with its protein, and four ways to spoil it."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from llama_gene.data.derived.coding import (
    FRAMESHIFT,
    NEGATIVES,
    OTHER_GENE,
    POINT_MUTANTS,
    REVERSE_COMPLEMENT,
    ConformOptions,
    TranslationOptions,
    conform_rows,
    translation_rows,
)
from llama_gene.data.tasks import load_task, read_task
from llama_gene.errors import ConfigError
from llama_gene.sequences.alphabet import reverse_complement, translate
from llama_gene.sequences.six_frames import six_frame_match

DATA = Path(os.environ.get("LLAMA_GENE_DATA", "nowhere"))
ECOLI = DATA / "tasks" / "central_dogma_ecoli"
TASKS = Path(__file__).parent.parent / "launch" / "configs" / "tasks"


def write_genes(path: Path, num: int = 21, codons: int = 40, seed: int = 1) -> Path:
    rng = random.Random(seed)
    sense = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT" if a + b + c not in ("TAA", "TAG", "TGA")]
    lines = ["locus_tag,cds,protein"]
    for number in range(num):
        body = "".join(rng.choices(sense, k=codons - 1))
        lines.append(f"b{number},GTG{body}TAA,M{translate(body, 11)}")
    path.write_text("\n".join(lines) + "\n")
    return path


def by_kind(rows: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    return {kind: [row for row in rows if row["subset"] == kind] for kind in ("", *NEGATIVES)}


def test_every_gene_gives_one_positive_and_one_negative_of_kinds_in_equal_numbers(tmp_path: Path) -> None:
    rejected: Counter[str] = Counter()
    rows = conform_rows(write_genes(tmp_path / "genes.csv"), ConformOptions(residues=20, bases=70), rejected)
    assert Counter(row["subset"] for row in rows) == {"": 20, **dict.fromkeys(NEGATIVES, 5)}
    assert rejected == {"gene too many for equal kinds of negatives": 1}
    assert Counter(row["gene"] for row in rows).most_common()[0][1] == 2
    assert [row["label"] for row in rows] == ["1", "0"] * 20
    assert {(len(row["dna"]), len(row["protein"])) for row in rows} == {(70, 20)}


def test_each_negative_is_what_its_name_says(tmp_path: Path) -> None:
    path = write_genes(tmp_path / "genes.csv")
    proteins = dict(line.split(",")[::2] for line in path.read_text().split()[1:])
    rows = conform_rows(path, ConformOptions(residues=20, bases=70), Counter())
    positives = {row["gene"]: row for row in rows if row["label"] == "1"}
    kinds = by_kind(rows)
    for row in rows:
        match, own = six_frame_match(row["dna"], row["protein"], both_strands=False), positives[row["gene"]]
        if row["label"] == "1":
            assert match == 1
            continue
        assert match < 1
        assert (row["dna"] == own["dna"]) == (row["subset"] in (OTHER_GENE, POINT_MUTANTS))
        assert (row["protein"] == own["protein"]) == (row["subset"] in (FRAMESHIFT, REVERSE_COMPLEMENT))
    for row in kinds[POINT_MUTANTS]:
        own = positives[row["gene"]]
        assert sum(a != b for a, b in zip(row["protein"], own["protein"], strict=True)) == 2
    assert all(reverse_complement(row["dna"]) == positives[row["gene"]]["dna"] for row in kinds[REVERSE_COMPLEMENT])
    assert all(six_frame_match(row["dna"], row["protein"]) == 1 for row in kinds[REVERSE_COMPLEMENT])
    for row in kinds[OTHER_GENE]:
        assert six_frame_match(row["dna"], row["protein"]) <= 0.5
        assert [name for name, protein in proteins.items() if row["protein"] in protein] not in ([], [row["gene"]])
    for row in kinds[FRAMESHIFT]:  # the first and the last third are read in different frames
        frames = [translate(row["dna"][shift:], 11) for shift in range(3)]
        first, last = ({shift for shift in range(3) if part in frames[shift]} for part in (row["protein"][:6], row["protein"][-6:]))
        assert len(first) == len(last) == 1 and first != last


def test_the_dna_begins_in_every_frame(tmp_path: Path) -> None:
    rows = conform_rows(write_genes(tmp_path / "genes.csv", 60), ConformOptions(residues=20, bases=70), Counter())
    frames = Counter()
    for row in rows:
        if row["label"] == "1":
            frames.update(shift for shift in range(3) if row["protein"] in translate(row["dna"][shift:], 11))
    assert set(frames) == {0, 1, 2}


def test_the_same_file_and_seed_give_the_same_rows_and_another_seed_others(tmp_path: Path) -> None:
    path = write_genes(tmp_path / "genes.csv")
    first, again, other = (
        conform_rows(path, ConformOptions(residues=20, bases=70, seed=seed), Counter()) for seed in (0, 0, 1)
    )  # fmt: skip
    assert first == again != other


def test_what_gives_no_row_is_counted(tmp_path: Path) -> None:
    path = write_genes(tmp_path / "genes.csv", 4, codons=21)
    with path.open("a") as handle:
        handle.write("x,,M\ny,ATGNNNTAA,MX\nz,ATGAAATAA,MW\n")
    rejected: Counter[str] = Counter()
    assert conform_rows(path, ConformOptions(residues=30, bases=100), rejected) == []
    assert rejected == {
        "gene shorter than the fragment": 4,
        "empty sequence": 1,
        "letters outside the dna alphabet": 1,
        "the genetic code does not make the protein": 1,
    }


def test_a_sample_keeps_the_kinds_equal(tmp_path: Path) -> None:
    rejected: Counter[str] = Counter()
    rows = conform_rows(write_genes(tmp_path / "genes.csv"), ConformOptions(residues=20, bases=70, genes=8), rejected)
    assert {kind: len(own) for kind, own in by_kind(rows).items()} == {"": 8, **dict.fromkeys(NEGATIVES, 2)}
    assert rejected == {"gene not in the sample": 13}


def test_genes_of_one_residue_repeated_have_no_other_gene_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "genes.csv"
    path.write_text("locus_tag,cds,protein\n" + "".join(f"b{n},ATG{'AAA' * 40}TAA,M{'K' * 40}\n" for n in range(5)))
    rejected: Counter[str] = Counter()
    assert conform_rows(path, ConformOptions(residues=20, bases=70), rejected) == []
    assert rejected == {"gene without a negative that differs enough": 5}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bases": 150}, "option 'bases': 150; expected 152 or more"),
        ({"mutated_share": 0.0}, "option 'mutated_share': 0"),
        ({"residues": 2}, "option 'residues': 2"),
        ({"genetic_code": 99}, "99"),
    ],
)
def test_options_that_cannot_be(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConformOptions(**values)  # type: ignore[arg-type]


def test_translation_asks_for_whole_genes_or_their_first_codons_and_the_code_answers(tmp_path: Path) -> None:
    path = tmp_path / "genes.csv"
    path.write_text("locus_tag,cds,protein\nb1,GTGAAATGGTAA,MKW\nb2,ATGAAATGGTGGTAA,MKWW\n")
    rejected: Counter[str] = Counter()
    whole = translation_rows(path, TranslationOptions(max_residues=3), rejected)
    assert whole == [{"gene": "b1", "dna": "GTGAAATGGTAA", "protein": "MKW", "oracle": "MKW", "source": "genes.csv:2"}]
    assert rejected == {"protein longer than max_residues": 1}
    short = translation_rows(path, TranslationOptions(residues=2), Counter())
    assert [(row["dna"], row["protein"], row["oracle"]) for row in short] == [("GTGAAA", "MK", "MK"), ("ATGAAA", "MK", "MK")]


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="LLAMA_GENE_DATA names no folder")
def test_real_genes_give_equal_kinds_and_no_frameshift_makes_its_protein() -> None:
    rejected: Counter[str] = Counter()
    rows = conform_rows(ECOLI / "test.csv", ConformOptions(), rejected)
    assert Counter(row["subset"] for row in rows) == {"": 396, **dict.fromkeys(NEGATIVES, 99)}
    assert rejected == {"gene shorter than the fragment": 11, "gene too many for equal kinds of negatives": 3}
    matches = {kind: [six_frame_match(row["dna"], row["protein"]) for row in own] for kind, own in by_kind(rows).items()}
    assert set(matches[""]) == set(matches[REVERSE_COMPLEMENT]) == {1.0}  # the rule reads both strands
    assert set(matches[POINT_MUTANTS]) == {0.9}
    assert max(matches[FRAMESHIFT]) < 0.8 and max(matches[OTHER_GENE]) < 0.5


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="LLAMA_GENE_DATA names no folder")
def test_no_real_test_gene_is_trained_on() -> None:
    table = load_task(read_task(TASKS / "central_dogma_conform.yaml"), DATA)
    genes = {split: {row["group"] for row in rows} for split, rows in table.splits.items()}
    assert {split: len(rows) for split, rows in table.splits.items()} == {"train": 4000, "dev": 784, "test": 792}
    assert not genes["test"] & (genes["train"] | genes["dev"]) and not genes["dev"] & genes["train"]
    assert table.labels == ["Conform", "Not Conform"] and not table.duplicates_removed
    translated = translation_rows(ECOLI / "test.csv", TranslationOptions(residues=60), Counter())
    assert len(translated) == 410 and all(row["oracle"] == row["protein"] for row in translated)
