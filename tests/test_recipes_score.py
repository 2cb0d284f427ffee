"""The score stage: likelihoods of sequences, mutation lists, VCF files; what it refuses."""

from __future__ import annotations

import csv
import gzip
import random
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from llama_gene import cli, runtime
from llama_gene.errors import InputError
from llama_gene.inference.likelihood import LikelihoodScorer
from llama_gene.models.adapters import load_model
from llama_gene.recipes.score import Config, run
from llama_gene.sequences.alphabet import reverse_complement
from tests.tiny_models import PIECES, save_adapter, save_model, tiny_gpt2, tiny_llama, tiny_tokenizer

RNG = random.Random(0)
GENES = {f"g{i}": "".join(RNG.choices("ACGT", k=k)) for i, k in enumerate((12, 90, 3, 40))}
CONTIG = "".join(RNG.choices("ACGT", k=700))
HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


def rows_of(*rows: tuple[int, str, str]) -> str:
    """Return VCF rows of chr1."""
    return "".join(f"chr1\t{pos}\t.\t{ref}\t{alt}\t.\tPASS\t.\n" for pos, ref, alt in rows)


@pytest.fixture(scope="module")
def w(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, sequences and variants."""
    folder = tmp_path_factory.mktemp("score")
    save_model(tiny_llama(vocab_size=261), tiny_tokenizer(PIECES), folder / "model")
    (folder / "genes.fa").write_text("".join(f">{name}\n{text.lower()}\n" for name, text in GENES.items()))
    (folder / "genome.fa").write_text(f">chr1 the only one\n{CONTIG}\n>unused\nACGT\n")
    (folder / "protein.fa").write_text(">p1\nMKTAYIAK\nQRQISF\n")
    (folder / "gaps.fa").write_text(">g\nAC-GT\n")
    (folder / "empty.fa").write_text("")
    (folder / "list.csv").write_text("id,mutation\ng0,A1C\n")
    other = "ACGT"[("ACGT".index(CONTIG[9]) + 1) % 4]
    (folder / "good.vcf").write_text(HEADER + rows_of((10, CONTIG[9], other)))
    (folder / "wrong_ref.vcf").write_text(HEADER + rows_of((10, CONTIG[9], other), (11, "ACGT"[("ACGT".index(CONTIG[10]) + 1) % 4], "A")))
    (folder / "beyond.vcf").write_text(HEADER + rows_of((701, "A", "C")))
    (folder / "no_chr.vcf").write_text(HEADER + "1\t10\t.\tA\tC\n")
    (folder / "symbolic.vcf").write_text(HEADER + rows_of((10, CONTIG[9], "<DEL>,*")))
    whole = gzip.compress((HEADER + rows_of(*[(i + 1, CONTIG[i], "ACGT") for i in range(600)])).encode())
    (folder / "cut.vcf.gz").write_bytes(whole[: len(whole) // 2])
    return folder


def scores(folder: Path) -> list[dict[str, str]]:
    """Return the rows of scores.csv."""
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def nats(w: Path, *texts: str, **settings: Any) -> list[float]:
    """Return log P of each text."""
    scorer = LikelihoodScorer(*load_model(w / "model"), **settings)
    return [scorer.score([text])[0].nats for text in texts]


def test_sequences_are_scored_with_their_letters_in_capitals(w: Path, tmp_path: Path) -> None:
    folder = run(Config(str(w / "model"), [str(w / "genes.fa")], max_length=32, output_dir=tmp_path / "out"))
    rows = scores(folder)
    assert [row["id"] for row in rows] == list(GENES) and [int(row["length"]) for row in rows] == [12, 90, 3, 40]
    expected = nats(w, *GENES.values(), max_length=32)
    assert [float(row["log_likelihood"]) for row in rows] == pytest.approx(expected, rel=1e-5)
    for row, value in zip(rows, expected, strict=True):
        assert float(row["per_token"]) == pytest.approx(value / int(row["tokens"]), rel=1e-4)
        assert float(row["bits_per_letter"]) == pytest.approx(-value / int(row["length"]) / 0.6931472, rel=1e-4)
    manifest = runtime.read_manifest(folder, "score")
    assert (manifest["rows"], manifest["windowed"]) == (4, sum(int(row["windows"]) > 1 for row in rows)) and manifest["windowed"] >= 1
    assert manifest["letter_counts"]["letters_changed"] == {"to_upper": 145}


def test_both_strands_are_averaged_and_told_apart(w: Path, tmp_path: Path) -> None:
    folder = run(Config(str(w / "model"), [str(w / "genes.fa")], strand="both", table="parquet", output_dir=tmp_path / "out"))
    table = parquet.read_table(folder / "scores.parquet").to_pydict()
    given, other = nats(w, *GENES.values()), nats(w, *map(reverse_complement, GENES.values()))
    assert table["log_likelihood_given"] == pytest.approx(given, rel=1e-5)
    assert table["log_likelihood_reverse"] == pytest.approx(other, rel=1e-5)
    assert table["log_likelihood"] == pytest.approx([(a + b) / 2 for a, b in zip(given, other, strict=True)], rel=1e-5)


def test_a_mutation_list_is_scored_against_its_sequence(w: Path, tmp_path: Path) -> None:
    gene = GENES["g3"]
    (tmp_path / "list.csv").write_text(f"id,mutation,fitness\ng3,{gene[4]}5N,0.5\ng3,{gene[4]}5_{gene[6]}7del,1\ng3,WT,2\ng0,1_2insAC,3\n")
    config = Config(str(w / "model"), [str(w / "genes.fa")], mutations=tmp_path / "list.csv", keep=["fitness"], output_dir=tmp_path / "out")
    rows = scores(run(config))
    mutants = [gene[:4] + "N" + gene[5:], gene[:4] + gene[7:], gene, GENES["g0"][:1] + "AC" + GENES["g0"][1:]]
    [known, short] = nats(w, gene, GENES["g0"])
    expected = [value - before for value, before in zip(nats(w, *mutants), (known, known, known, short), strict=True)]
    assert [float(row["score"]) for row in rows] == pytest.approx(expected, abs=1e-4)
    assert float(rows[2]["score"]) == 0.0
    assert [row["fitness"] for row in rows] == ["0.5", "1", "2", "3"] and [row["line"] for row in rows] == ["2", "3", "4", "5"]
    change = float(rows[1]["mutant_bits_per_letter"]) - float(rows[1]["reference_bits_per_letter"])
    assert float(rows[1]["bits_per_letter_change"]) == pytest.approx(change, abs=2e-6)
    assert (rows[0]["window_start"], rows[0]["window_end"]) == ("1", "40")


def test_vcf_alleles_are_scored_in_windows_of_the_reference(w: Path, tmp_path: Path) -> None:
    base = {i: "ACGT"[("ACGT".index(CONTIG[i]) + 1) % 4] for i in (0, 349)}
    text = HEADER + rows_of((1, CONTIG[0], base[0]), (350, CONTIG[349], f"{base[349]},{CONTIG[349]}TT,*"), (699, CONTIG[698:], CONTIG[698]))
    path = tmp_path / "calls.vcf.gz"
    path.write_bytes(gzip.compress(text.replace("\n", "\r\n").encode()))
    folder = run(Config(str(w / "model"), vcf=path, reference=w / "genome.fa", flank=20, strand="both", output_dir=tmp_path / "out"))
    rows = scores(folder)
    assert [(row["window_start"], row["window_end"]) for row in rows] == [("1", "21"), ("330", "370"), ("330", "370"), ("679", "700")]
    pairs = [
        (CONTIG[:21], base[0] + CONTIG[1:21]),
        (CONTIG[329:370], CONTIG[329:349] + base[349] + CONTIG[350:370]),
        (CONTIG[329:370], CONTIG[329:350] + "TT" + CONTIG[350:370]),
        (CONTIG[678:], CONTIG[678:699]),
    ]
    for row, (reference, mutant) in zip(rows, pairs, strict=True):
        one, two = nats(w, reference, mutant)
        three, four = nats(w, reverse_complement(reference), reverse_complement(mutant))
        assert float(row["score_given"]) == pytest.approx(two - one, abs=1e-4)
        assert float(row["score_reverse"]) == pytest.approx(four - three, abs=1e-4)
        assert float(row["score"]) == pytest.approx((two - one + four - three) / 2, abs=1e-4)
    manifest = runtime.read_manifest(folder, "score")
    assert manifest["rejected"] == {"overlapping deletion": 1}
    assert manifest["computed"] == 14  # two strands of three references and four mutants: the shared reference once


def test_law_08_a_score_does_not_depend_on_the_other_variants(w: Path, tmp_path: Path) -> None:
    edits = [(i + 1, CONTIG[i], "ACGT"[("ACGT".index(CONTIG[i]) + 1) % 4]) for i in range(0, 700, 35)]
    found = []
    for name, chosen, batch_tokens in (("all", edits, 16384), ("reversed", edits[::-1], 1), ("one", edits[7:8], 300)):
        path = tmp_path / f"{name}.vcf"
        path.write_text(HEADER + rows_of(*chosen))
        config = Config(str(w / "model"), vcf=path, reference=w / "genome.fa", batch_tokens=batch_tokens, output_dir=tmp_path / name)
        found.append({row["mutation"]: float(row["score"]) for row in scores(run(config))})
    assert found[1] == pytest.approx(found[0], abs=1e-4)
    [(name, value)] = found[2].items()
    assert value == pytest.approx(found[0][name], abs=1e-4)


def test_adapters_and_gpt2_are_read(w: Path, tmp_path: Path) -> None:
    save_model(tiny_gpt2(), tiny_tokenizer(), tmp_path / "gpt2")
    for model in (tmp_path / "gpt2", save_adapter(tmp_path / "adapter")):
        folder = run(Config(str(model), [str(w / "genes.fa")], output_dir=tmp_path / f"out_{model.name}"))
        assert len(scores(folder)) == 4


def test_gaps_would_shift_the_positions_of_a_list(w: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"letters of the sequences were left out \(gap: 1\)"):
        run(Config(str(w / "model"), [str(w / "gaps.fa")], mutations=w / "list.csv", output_dir=tmp_path / "out"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--inputs {w}/empty.fa", "empty.fa holds no record"),
        ("--inputs {w}/protein.fa", "protein.fa, line 2: '.' is not a DNA letter; .* set kind: protein"),
        ("--inputs {w}/protein.fa --kind protein --strand both", "strand: both with kind: protein, which has no other strand"),
        ("--inputs {w}/genes.fa --vcf {w}/good.vcf", "vcf is given beside inputs"),
        ("--vcf {w}/good.vcf", "only one of vcf and reference is given"),
        ("--inputs {w}/genes.fa --flank 5", "flank is given without variants"),
        ("--inputs {w}/genes.fa --keep [x]", "keep names columns without a mutation list"),
        ("--inputs {w}/genes.fa --mutations {w}/gone.csv", "gone.csv does not exist"),
        ("--inputs {w}/protein.fa --kind protein --mutations {w}/list.csv", "list.csv, line 2: no sequence is named 'g0'"),
        ("--vcf {w}/wrong_ref.vcf --reference {w}/genome.fa", "wrong_ref.vcf, line 4: REF is ., and the reference has . at chr1:11"),
        ("--vcf {w}/beyond.vcf --reference {w}/genome.fa", "line 3: chr1:701 with REF A ends beyond the contig"),
        ("--vcf {w}/no_chr.vcf --reference {w}/genome.fa", "line 3: the reference has no contig '1'.* writes chr before the name"),
        ("--vcf {w}/cut.vcf.gz --reference {w}/genome.fa", "cut.vcf.gz cannot be decompressed"),
        ("--vcf {w}/symbolic.vcf --reference {w}/genome.fa", r"no variant can be scored \(symbolic allele: 1, overlapping deletion: 1\)"),
        ("--vcf {w}/genome.fa --reference {w}/genome.fa", "genome.fa, line 1: .* without a header"),
        ("--vcf - --reference {w}/genome.fa", "vcf or mutations is standard input"),
        ("--inputs {w}/genes.fa --max_length 0", "max_length is 0; expected at least 1 token"),
        ("--inputs {w}/genes.fa --batch_tokens 0", "batch_tokens is 0; expected at least 1 token"),
        ("--inputs {w}/genes.fa --max_length 1", "max_length is 1; expected at least 2"),
        ("", "there is nothing to score"),
    ],
)
def test_bad_input_is_one_line(
    w: Path, tmp_path: Path, arguments: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLAMA_GENE_DATA", raising=False)
    words = f"score --model {w}/model --output_dir {tmp_path}/out {arguments}".replace("{w}", str(w)).split()
    assert cli.main(words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("llama-gene score: ")]
    assert len(lines) == 1 and re.search(message, lines[0]), lines
    assert not list(tmp_path.iterdir())
