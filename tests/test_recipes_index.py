"""The index stage: what it reads, that its bytes depend on the inputs alone, and what it refuses."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from llama_gene import cli
from llama_gene.data import evidence_index
from llama_gene.data.evidence import find_neighbours
from llama_gene.data.evidence_index import FILES, open_index
from llama_gene.errors import ConfigError, InputError, MissingFileError
from llama_gene.recipes.index import Config, run
from llama_gene.runtime import read_manifest

RNG = random.Random(0)
PROTEINS = {f"p{i}": "".join(RNG.choices("ACDEFGHIKLMNPQRSTVWY", k=80 + i)) for i in range(40)}
FLAT = """ID   LACT_HUMAN              Reviewed;          60 AA.
AC   P12345;
DT   01-JAN-2000, integrated into UniProtKB/Swiss-Prot.
DE   RecName: Full=Lactase;
DE            EC=3.2.1.108;
GN   Name=LCT;
OS   Homo sapiens (Human).
OC   Eukaryota.
OX   NCBI_TaxID=9606;
CC   -!- FUNCTION: Splits lactose.
PE   1: Evidence at protein level;
KW   Hydrolase.
SQ   SEQUENCE   60 AA;  6000 MW;  0000000000000000 CRC64;
     {0}
//
"""


def fasta(path: Path, records: dict[str, str]) -> str:
    path.write_text("".join(f">{header}\n{text}\n" for header, text in records.items()))
    return str(path)


def content(folder: Path) -> dict[str, Any]:
    """Return the bytes of all files; of the manifest all but what its config says of workers and folders."""
    files: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
    manifest = read_manifest(folder)
    return {**files, "manifest": {key: value for key, value in manifest.items() if key != "config"}}


def test_law_15_one_and_two_workers_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_index, "PART_LETTERS", 500)
    inputs = [fasta(tmp_path / "a.fa", PROTEINS)]
    made = [content(run(Config(inputs, workers=workers, output_dir=tmp_path / f"with{workers}"))) for workers in (1, 2)]
    assert made[0] == made[1] and set(made[0]) == {*FILES, "manifest"}
    monkeypatch.setattr(evidence_index, "PART_LETTERS", 10**6)
    assert content(run(Config(inputs, output_dir=tmp_path / "one_part"))) == made[0]


def test_a_uniprot_entry_is_known_by_all_that_it_says(tmp_path: Path) -> None:
    sequence = PROTEINS["p0"][:60]
    (tmp_path / "u.dat").write_text(FLAT.format(" ".join(sequence[i : i + 10] for i in range(0, 60, 10))))
    headers = {"sp|P2|B_YEAST Lyase (EC 4.2.1.1) OS=Yeast OX=1 GN=lya": PROTEINS["p1"], "plain": PROTEINS["p2"]}
    index = open_index(run(Config([str(tmp_path / "u.dat"), fasta(tmp_path / "f.fa", headers)], output_dir=tmp_path / "out")))
    assert [(entry.id, entry.text) for entry in map(index.entry, range(3))] == [
        (
            "P12345",
            "Protein: Lactase; Gene: LCT; Organism: Homo sapiens (Human); Function: Splits lactose; "
            "EC number: 3.2.1.108; Keyword: Hydrolase",
        ),
        ("P2", "Protein: Lyase (EC 4.2.1.1); Gene: lya; Organism: Yeast; EC number: 4.2.1.1"),
        ("plain", ""),
    ]
    assert find_neighbours(index, sequence)[0].id == "P12345"
    assert read_manifest(index.folder)["without_text"] == 1


def test_a_table_is_known_by_its_columns(tmp_path: Path) -> None:
    rows = "".join(f"{text},{i % 3},,{name}\n" for i, (name, text) in enumerate(PROTEINS.items()))
    (tmp_path / "t.csv").write_text(f"sequence,ec,note,chain\n{rows}")
    config = Config([str(tmp_path / "t.csv")], id_column="chain", text_columns=["ec", "note"], output_dir=tmp_path / "out")
    entry = open_index(run(config)).entry(4)
    assert (entry.id, entry.text, entry.sequence) == ("p4", "ec: 1", PROTEINS["p4"])


def test_unnamed_empty_and_repeated_records_are_counted_and_two_of_one_name_refused(tmp_path: Path) -> None:
    text = f">\n{PROTEINS['p0']}\n>a x\n{PROTEINS['p1']}\n>b\n\n>a x\n{PROTEINS['p1'].lower()}\n>c\nMA\n"
    (tmp_path / "f.fa").write_text(text)
    manifest = read_manifest(run(Config([str(tmp_path / "f.fa")], output_dir=tmp_path / "out")))
    assert {name: manifest[name] for name in ("records", "entries", "short", "unnamed", "repeated")} == {
        "records": 2, "entries": 2, "short": 1, "unnamed": 1, "repeated": 1,
    }  # fmt: skip
    assert manifest["letter_counts"]["records_rejected"] == {"empty": 1}
    (tmp_path / "f.fa").write_text(text + f">a y\n{PROTEINS['p1']}\n")
    with pytest.raises(InputError, match="two records are named 'a' and differ"):
        run(Config([str(tmp_path / "f.fa")], output_dir=tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_record_of_a_million_bases_becomes_windows(tmp_path: Path) -> None:
    genome = "".join(random.Random(1).choices("ACGT", k=1_000_000))
    folder = run(Config([fasta(tmp_path / "g.fa", {"chr1 the whole": genome})], kind="dna", scaled=4, output_dir=tmp_path / "out"))
    manifest = read_manifest(folder)
    assert (manifest["letters"], manifest["entries"]) == (1_000_000, 250) and 250_000 < manifest["hashes"] < 400_000
    [found] = find_neighbours(open_index(folder), genome[500_100:500_500])
    assert (found.id, found.identity, found.text) == ("chr1", 1.0, "the whole") and found.start <= 500_100 < found.start + 5000


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    folder = run(Config([fasta(tmp_path / "a.fa", PROTEINS)], output_dir=tmp_path / "out"))
    with pytest.raises(MissingFileError):
        open_index(tmp_path / "none")
    for name in FILES:
        whole = (folder / name).read_bytes()
        for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
            (folder / name).write_bytes(damaged)
            with pytest.raises(InputError, match=f"{name} is damaged or was changed"):
                open_index(folder)
        (folder / name).unlink()
        with pytest.raises(InputError, match=f"{name} is missing"):
            open_index(folder)
        (folder / name).write_bytes(whole)
    assert open_index(folder).num_entries == 40
    (folder / "manifest.json").write_text('{"stage": "corpus", "version": "1"}')
    with pytest.raises(InputError, match="was written by `corpus`"):
        open_index(folder)


def test_bad_settings_are_one_line_and_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fasta(tmp_path / "a.fa", PROTEINS)
    for flags, words in (
        (["--kmer", "1"], "kmer 1"),
        (["--scaled", "0"], "scaled 0"),
        (["--kind", "3di"], "3di"),
        (["--workers", "0"], "workers is 0"),
        (["--kind", "dna"], "is not a DNA letter"),
    ):
        assert cli.main(["index", "--inputs", path, "--output_dir", str(tmp_path / "out"), *flags]) == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("llama-gene index:")]
        assert words in line and not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="inputs or output_dir"):
        run(Config())
    (tmp_path / "e.fa").write_text(">a\n\n")
    with pytest.raises(InputError, match="no record is left to index"):
        run(Config([str(tmp_path / "e.fa")], output_dir=tmp_path / "out"))
