"""Damage at random: GenBank, GFF3 and UniProt files with places overwritten, cut out or doubled."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from llama_gene.errors import InputError
from llama_gene.sequences.features import exon_states
from llama_gene.sequences.genbank import read_genbank
from llama_gene.sequences.genes import coding_sequences
from llama_gene.sequences.gff import read_gff
from llama_gene.sequences.uniprot import read_uniprot
from tests.fixtures.annotated_files import ENTRY, FASTA, GENES, GFF, damaged, genbank, letters_of_the_text

WHOLE = {"gb": genbank(features=GENES) + genbank("ACGT" * 40, "CDS join(1..6,70..99)"), "gff": GFF + "##FASTA\n" + FASTA, "dat": ENTRY * 2}


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged(WHOLE))
def test_law_13_a_damaged_file_is_refused_in_one_line_or_read_to_the_last_letter(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[str, str]
) -> None:
    suffix, text = file
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    path.write_bytes(text.encode())
    counts: Counter[str] = Counter()
    try:
        if suffix == "dat":
            num_letters = sum(len(entry.sequence) for entry in read_uniprot(path))
        else:
            records = list(read_genbank(path) if suffix == "gb" else read_gff(path))
            num_letters = sum(len(record.sequence) for record in records)
            assert all(len(exon_states(record)) == len(record.sequence) for record in records)
            assert all(gene.protein for record in records for gene in coding_sequences(record, counts))
    except InputError as error:
        assert "\n" not in str(error) and f"damaged.{suffix}" in str(error)
        return
    assert num_letters == letters_of_the_text(suffix, text)
    stated = {"gb": r"LOCUS +\S+ +(\d+) bp", "dat": r"ID  .*?(\d+)\s+\S+\s*$", "gff": None}[suffix]
    if stated is not None:
        lines = re.split("\r\n|\r|\n", text)
        assert num_letters == sum(int(match[1]) for line in lines if (match := re.match(stated, line)))
    assert counts["read"] == counts["kept"] + sum(number for reason, number in counts.items() if reason.startswith("skipped:"))
