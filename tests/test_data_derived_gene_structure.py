"""Exon, intron or other, a letter a base, on the gene's own strand."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from llama_gene.data.derived.gene_structure import StructureOptions, structure_rows
from llama_gene.data.derived.tables import derived_rows
from llama_gene.data.tasks import read_task
from llama_gene.errors import ConfigError
from llama_gene.sequences.alphabet import reverse_complement

DATA = Path(os.environ.get("LLAMA_GENE_DATA", "nowhere"))
TASKS = Path(__file__).parent.parent / "launch" / "configs" / "tasks"
DNA = "TTTTTTTTTT" + "ATGAAACCC" + "GTAAAAAAAG" + "GGGTTTTTTTAA" + "CCCCCCCCCCCC"  # 10 + 9 + 10 + 12 + 12
STATES = "O" * 10 + "E" * 9 + "I" * 10 + "E" * 12 + "O" * 12


def write_gff(folder: Path, dna: str = DNA, lines: tuple[str, ...] = ("+ 11 19", "+ 30 41")) -> tuple[Path, Path]:
    rows = ["##gff-version 3"]
    for line in lines:
        strand, start, end = line.split()
        rows.append(f"chr\tx\tCDS\t{start}\t{end}\t.\t{strand}\t0\tID=c{strand};gene=g{strand}")
    (folder / "genes.gff").write_text("\n".join(rows) + "\n")
    (folder / "genome.fa").write_text(f">chr\n{dna}\n")
    return folder / "genes.gff", folder / "genome.fa"


def rows_of(folder: Path, rejected: Counter[str] | None = None, **options: object) -> list[dict[str, str]]:
    gff, fasta = folder / "genes.gff", folder / "genome.fa"
    values = {"fasta": fasta, "flank": 5, "min_window": 10, **options}
    return structure_rows(gff, StructureOptions(**values), Counter() if rejected is None else rejected)  # type: ignore[arg-type]


def test_a_gene_and_its_flanks_with_one_state_a_base(tmp_path: Path) -> None:
    write_gff(tmp_path)
    (row,) = rows_of(tmp_path)
    assert (row["sequence"], row["states"]) == (DNA[5:46], STATES[5:46])
    assert (row["gene"], row["record"], row["source"]) == ("g+", "chr", "genes.gff:chr:6..46+:1")


def test_a_gene_of_the_other_strand_is_turned(tmp_path: Path) -> None:
    turned = reverse_complement(DNA)
    write_gff(tmp_path, turned, ("- 13 24", "- 35 43"))
    (row,) = rows_of(tmp_path)
    assert (row["sequence"], row["states"]) == (DNA[5:46], STATES[5:46])


def test_a_gene_of_the_other_strand_does_not_colour_this_one(tmp_path: Path) -> None:
    write_gff(tmp_path, DNA, ("+ 11 19", "+ 30 41", "- 3 8", "- 42 47"))
    rows = {row["gene"]: row for row in rows_of(tmp_path)}
    assert rows["g+"]["states"] == STATES[5:46]
    assert set(rows["g-"]["states"]) == {"E", "I", "O"}


def test_a_long_gene_is_cut_into_tiles_and_short_ends_are_counted(tmp_path: Path) -> None:
    write_gff(tmp_path)
    rejected: Counter[str] = Counter()
    rows = rows_of(tmp_path, rejected, window=12, min_window=12)
    assert [row["sequence"] for row in rows] == [DNA[5:17], DNA[17:29], DNA[29:41]]
    assert "".join(row["states"] for row in rows) == STATES[5:41]
    assert rejected == {"tile shorter than min_window": 1}


def test_what_is_no_gene_to_ask_about_is_counted(tmp_path: Path) -> None:
    write_gff(tmp_path, DNA[:25] + "N" + DNA[26:], ("+ 11 19", "+ 30 41", "- 3 8"))
    rejected: Counter[str] = Counter()
    assert rows_of(tmp_path, rejected) == []
    assert rejected == {"gene without an intron": 1, "tile with an unknown base": 1}
    write_gff(tmp_path, DNA, ("+ 11 19", "+ 21 29"))  # one base left out: the ribosome slips, no intron
    assert rows_of(tmp_path) == []
    assert len(rows_of(tmp_path, with_introns=False)) == 1


def test_windows_below_their_least_are_refused() -> None:
    with pytest.raises(ConfigError, match="option 'window': 50; expected 100 or more"):
        StructureOptions(window=50)


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="LLAMA_GENE_DATA names no folder")
def test_no_real_test_region_overlaps_a_training_region() -> None:
    task = read_task(TASKS / "drosophila_gene_structure.yaml")
    regions, counts = {}, {}
    for split, name in (("train", task.train[0]), ("test", task.test[0])):
        rows = derived_rows(task.derive, task.derive_options, DATA / name, ["sequence", "states", "gene"], DATA)
        assert all(len(row["sequence"]) == len(row["states"]) for row in rows)
        counts[split] = (len(rows), Counter("".join(row["states"] for row in rows)))
        regions[split] = {tuple(map(int, re.findall(r"\d+", row["record"])[-2:])) for row in rows}
    assert counts["train"] == (939, {"E": 436_255, "I": 307_289, "O": 93_364})
    assert counts["test"] == (350, {"E": 124_974, "I": 173_233, "O": 25_574})
    assert not any(a <= d and c <= b for a, b in regions["train"] for c, d in regions["test"])


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="LLAMA_GENE_DATA names no folder")
def test_real_yeast_introns_begin_with_gt_and_end_with_ag() -> None:
    task = read_task(TASKS / "yeast_gene_structure.yaml")
    rows = derived_rows(task.derive, task.derive_options, DATA / task.files[0], ["sequence", "states", "record"], DATA)
    ends = Counter()
    for row in rows:
        if row["record"] != "Mito":
            for match in re.finditer("(?<=E)I+(?=E)", row["states"]):
                intron = row["sequence"][match.start() : match.end()]
                ends[f"{intron[:2]}..{intron[-2:]}"] += 1
    assert len({row["record"] for row in rows}) == 17
    assert ends["GT..AG"] / ends.total() > 0.9, ends
