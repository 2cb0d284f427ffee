"""Corpus: every letter accounted for, held-out text that never repeats training text, the same bytes for the same seed."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gene.data.corpus import CorpusCounts, CutPolicy, Source, read_corpus, write_corpus
from llama_gene.errors import ConfigError, InputError, MissingFileError
from llama_gene.sequences.alphabet import reverse_complement

SMALL = CutPolicy(min_fragment=5, max_fragment=12, max_protein=20, valid_fraction=0.2)


def fasta(path: Path, records: dict[str, str]) -> str:
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records.items()))
    return str(path)


def dna(length: int, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices("ACGT", k=length))


def write(folder: Path, *sources: Source, policy: CutPolicy = SMALL, seed: int = 0, data_dir: Path | None = None) -> dict[str, Any]:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    return write_corpus(sources, policy, out, data_dir, seed)


def texts(folder: Path, language: str, split: str) -> list[str]:
    lines = (folder / "out" / f"{language}.{split}.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines]


def accounted(counts: dict[str, Any]) -> int:
    return sum(counts["letters_kept"].values()) + sum(counts["letters_rejected"].values())


# --- law 13 ----------------------------------------------------------------------------------------------------------------------


def test_law_13_letters_of_a_small_genome_by_hand(tmp_path: Path) -> None:
    records = {
        "whole": "ACGTACGTAC",
        "gap": "AACCGGTNNNTTTGGCAN",  # 7 letters, 3 unknown, 7 letters, 1 unknown
        "copy": "ACGTACGTAC",
        "other_strand": "GTACGTACGT",
        "short": "ACG",
        "only_unknown": "NNNN",
    }
    counts = write(tmp_path, Source("dna", inputs=[fasta(tmp_path / "a.fa", records)], split="train"))["dna"]
    assert counts == {
        "kind": "dna",
        "records": 6,
        "letters_read": 55,
        "letters_kept": {"train": 24},
        "documents": {"train": 3},
        "letters_rejected": {"unknown": 8, "repeat of an earlier document": 20, "too_short": 3},
    }
    assert texts(tmp_path, "dna", "train") == ["ACGTACGTAC", "AACCGGT", "TTTGGCA"]


pieces = st.sampled_from(["ACGTTGCA", "TGCAACGT", "GATTACAGATTACA", "N", "NNNN", "AC", "acgtn", "RYGATTACA", "TTTTTTTTTTTTTTTT"])
genomes = st.lists(st.lists(pieces, min_size=1, max_size=8).map("".join), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(genomes, st.sampled_from([0.0, 0.1, 0.5]), st.integers(0, 3), st.sampled_from([0, 7, 40]), st.booleans())
def test_law_13_every_letter_read_is_kept_or_rejected(
    genome: list[str], valid_fraction: float, seed: int, max_letters: int, uppercase: bool
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        # One record that is surely kept, so that the corpus is not empty.
        inputs = [fasta(folder / "a.fa", {"kept": "GGCCAATTCGAT", **{f"r{number}": text for number, text in enumerate(genome)}})]
        policy = CutPolicy(5, 12, 20, valid_fraction)
        source = Source("dna", inputs=inputs, max_letters=max_letters, uppercase=uppercase)
        counts = write(folder, source, policy=policy, seed=seed)["dna"]
        total = 12 + sum(map(len, genome))
        assert counts["letters_read"] == (min(max_letters, total) if max_letters else total) == accounted(counts)
        for split in ("train", "valid"):
            written = texts(folder, "dna", split)
            assert sum(map(len, written)) == counts["letters_kept"].get(split, 0)
            assert len(written) == counts["documents"].get(split, 0)
            assert all("N" not in text.upper() and 5 <= len(text) <= 12 for text in written)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("ACDEFGHIKLMNPQRSTVWYX", min_size=1, max_size=70), min_size=1, max_size=6), st.sampled_from([0.0, 0.5]))
def test_law_13_holds_for_proteins(proteome: list[str], valid_fraction: float) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "kept.fa").write_text(">kept\nMKTAYIAKQRQISFVK\n")
        sources = [
            Source("protein", inputs=[str(folder / "kept.fa")], split="train"),
            Source("protein", inputs=[fasta(folder / "a.fa", {f"p{number}": text for number, text in enumerate(proteome)})]),
        ]
        counts = write(folder, *sources, policy=CutPolicy(5, 12, 20, valid_fraction))["protein"]
        assert counts["letters_read"] == 16 + sum(map(len, proteome)) == accounted(counts)


def test_law_13_the_check_can_fail() -> None:
    with pytest.raises(AssertionError, match="10 letters read, but 0 accounted for"):
        CorpusCounts(letters_read=10).check()


# --- law 15 ----------------------------------------------------------------------------------------------------------------------


def test_letters_of_a_namespaced_alphabet_are_written_as_their_tokens_and_counted_as_letters(tmp_path: Path) -> None:
    path = fasta(tmp_path / "structures.fa", {"a": "DVVL" * 3, "b": "PPPQ" * 3})
    counts = write(tmp_path, Source(language="structure", inputs=[path], kind="3di", split="train"))
    assert texts(tmp_path, "structure", "train") == ["<3di:d><3di:v><3di:v><3di:l>" * 3, "<3di:p><3di:p><3di:p><3di:q>" * 3]
    assert counts["structure"]["letters_kept"]["train"] == 24


def test_law_15_the_same_inputs_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    genome = fasta(tmp_path / "a.fa", {f"chr{number}": dna(400, number) for number in range(5)})
    proteins = fasta(tmp_path / "p.fa", {f"p{number}": "MKTAYIAKQRQISFVK" + "ACDEFGHIKL"[number] for number in range(10)})
    written = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, Source("dna", inputs=[genome]), Source("protein", inputs=[proteins]), seed=seed)
        written.append({path.name: path.read_bytes() for path in sorted((tmp_path / name / "out").iterdir())})
    assert written[0] == written[1]
    assert written[0]["dna.train.jsonl"] != written[2]["dna.train.jsonl"]


# --- held-out text ---------------------------------------------------------------------------------------------------------------


def test_no_fragment_straddles_the_cut_between_train_and_valid(tmp_path: Path) -> None:
    genome = dna(1000)
    write(tmp_path, Source("dna", inputs=[fasta(tmp_path / "a.fa", {"chr": genome})]))
    spans: dict[str, list[tuple[int, int]]] = {}
    for split in ("train", "valid"):
        spans[split] = []
        for name, text in read_corpus(tmp_path / "out", "dna", split):
            record, _, place = name.rpartition(":")
            offset = int(record.partition("+")[2] or 0)
            start, end = (offset + int(number) for number in place.split("-"))
            assert genome[start:end] == text
            spans[split].append((start, end))
    assert max(end for _, end in spans["train"]) <= 800 == min(start for start, _ in spans["valid"])
    assert sum(end - start for start, end in spans["valid"]) == 200


def test_a_record_too_short_to_hold_out_a_fragment_stays_in_training(tmp_path: Path) -> None:
    counts = write(tmp_path, Source("dna", inputs=[fasta(tmp_path / "a.fa", {"a": dna(20), "b": dna(25, 1)})]))["dna"]
    assert counts["letters_kept"] == {"train": 40, "valid": 5}  # a fifth of 20 is below min_fragment, a fifth of 25 is not


def canonical(text: str) -> str:
    return min(text, reverse_complement(text))


@settings(max_examples=40, deadline=None)
@given(genomes, st.integers(0, 3))
def test_held_out_dna_never_repeats_training_dna_on_either_strand(genome: list[str], seed: int) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        records = {f"r{number}": text for number, text in enumerate(genome)}
        copies = {f"c{number}": reverse_complement(text) for number, text in enumerate(genome)}
        sources = [
            Source("dna", inputs=[fasta(folder / "valid.fa", records | copies)], split="valid"),
            Source("dna", inputs=[fasta(folder / "auto.fa", {"kept": "GGCCAATTCGAT"} | records)]),
        ]
        write(folder, *sources, seed=seed)
        train, valid = ([canonical(text) for text in texts(folder, "dna", split)] for split in ("train", "valid"))
        assert not set(train) & set(valid)
        assert len(set(train)) == len(train) and len(set(valid)) == len(valid)


def test_training_files_win_over_held_out_files_that_repeat_them(tmp_path: Path) -> None:
    same = fasta(tmp_path / "a.fa", {"a": "ACGTTGCACC"})
    other = fasta(tmp_path / "b.fa", {"b": "GGTGCAACGT", "c": "TTTTGGGGCC"})  # b is the other strand of a
    counts = write(tmp_path, Source("dna", inputs=[other], split="valid"), Source("dna", inputs=[same], split="train"))["dna"]
    assert texts(tmp_path, "dna", "train") == ["ACGTTGCACC"] and texts(tmp_path, "dna", "valid") == ["TTTTGGGGCC"]
    assert counts["letters_rejected"] == {"repeat of an earlier document": 10}


def test_a_share_of_the_proteins_is_held_out_by_their_names(tmp_path: Path) -> None:
    rng = random.Random(0)
    records = {f"p{number}": "".join(rng.choices("ACDEFGHIKL", k=15)) for number in range(500)}
    counts = write(tmp_path, Source("protein", inputs=[fasta(tmp_path / "p.fa", records)]))["protein"]
    assert 70 < counts["documents"]["valid"] < 130  # a fifth of 500
    held_out = {name for name, _ in read_corpus(tmp_path / "out", "protein", "valid")}
    fasta(tmp_path / "p.fa", dict(reversed(records.items())))
    write(tmp_path, Source("protein", inputs=[str(tmp_path / "p.fa")]))
    assert {name for name, _ in read_corpus(tmp_path / "out", "protein", "valid")} == held_out  # whatever their order


# --- documents -------------------------------------------------------------------------------------------------------------------


def test_long_proteins_are_windowed_and_short_ones_rejected(tmp_path: Path) -> None:
    records = {"long": "MKTAYIAKQRQISFVKSHFSRQLEERLGLI", "short": "MKTAYIAKQ", "fits": "MKTAYIAKQRQISFVKSHFS" + ""}
    counts = write(tmp_path, Source("protein", inputs=[fasta(tmp_path / "p.fa", records)], split="train"))["protein"]
    assert list(read_corpus(tmp_path / "out", "protein", "train")) == [
        ("long:0", "MKTAYIAKQRQISFVKSHFS"),
        ("long:20", "RQLEERLGLI"),
    ]
    assert counts["letters_rejected"] == {"shorter than 10 residues": 9, "repeat of an earlier document": 20}


def test_english_comes_as_the_reader_gives_it(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "e.jsonl.gz", "wt", encoding="utf-8") as handle:
        handle.write('{"id": "a", "text": "A gene.\\nTwo größer lines."}\n{"id": "b", "text": "A gene."}\n')
    counts = write(tmp_path, Source("english", inputs=[str(tmp_path / "e.jsonl.gz")], split="train"))["english"]
    assert list(read_corpus(tmp_path / "out", "english", "train")) == [("a", "A gene.\nTwo größer lines."), ("b", "A gene.")]
    assert counts["letters_kept"] == {"train": 32} and counts["kind"] == "english"


def test_lower_case_is_read_as_upper_case_unless_it_is_to_stay(tmp_path: Path) -> None:
    path = fasta(tmp_path / "a.fa", {"a": "acgtACGTaa"})
    write(tmp_path, Source("dna", inputs=[path], split="train"))
    assert texts(tmp_path, "dna", "train") == ["ACGTACGTAA"]
    write(tmp_path, Source("dna", inputs=[path], split="train", uppercase=False))
    assert texts(tmp_path, "dna", "train") == ["acgtACGTaa"]


def test_two_sources_of_one_language_and_a_language_with_another_name(tmp_path: Path) -> None:
    one, two = (fasta(tmp_path / f"{name}.fa", {name: dna(10, seed)}) for seed, name in enumerate(("one", "two")))
    sources = [Source("dna", inputs=[one], split="train"), Source("dna", inputs=[two], split="train")]
    report = write(tmp_path, *sources, Source("phage", kind="dna", inputs=[one], split="train"))
    assert [report[name]["documents"] for name in ("dna", "phage")] == [{"train": 2}, {"train": 1}]


def test_inputs_are_looked_up_here_and_then_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "data").mkdir()
    fasta(tmp_path / "here" / "a.fa", {"a": "AAAAAAAAAC"})
    for name in "ab":
        fasta(tmp_path / "data" / f"{name}.fa", {name: "CCCCCCCCCA"})
    monkeypatch.chdir(tmp_path / "here")
    write(tmp_path, Source("dna", inputs=["a.fa", "b.f*"], split="train"), data_dir=tmp_path / "data")
    assert texts(tmp_path, "dna", "train") == ["AAAAAAAAAC", "CCCCCCCCCA"]


# --- refusals --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (CutPolicy(min_fragment=0), "cut.min_fragment is 0, cut.max_fragment 1000; expected 1 <= min_fragment <= max_fragment"),
        (CutPolicy(min_fragment=-3), "cut.min_fragment is -3"),
        (CutPolicy(min_fragment=9, max_fragment=8), "cut.min_fragment is 9, cut.max_fragment 8"),
        (CutPolicy(max_protein=0), "cut.max_protein is 0; expected at least 10 residues"),
        (CutPolicy(valid_fraction=-0.1), "cut.valid_fraction is -0.1; expected at least 0 and below 1"),
        (CutPolicy(valid_fraction=1.0), "cut.valid_fraction is 1.0"),
    ],
)
def test_sizes_that_cut_nothing_are_refused(tmp_path: Path, policy: CutPolicy, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write(tmp_path, Source("dna", inputs=[fasta(tmp_path / "a.fa", {"a": dna(50)})]), policy=policy)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source("dna", inputs=[]), "the source of 'dna' has no inputs"),
        (Source("../dna", kind="dna", inputs=["a.fa"]), "language '../dna' cannot be a file name"),
        (Source("dna", inputs=["a.fa"], max_letters=-1), "max_letters of 'dna' is -1"),
        (Source("DNA", inputs=["a.fa"]), "kind 'DNA' is unknown; expected one of dna, rna, protein.*, english. Did you mean 'dna'"),
        (Source("englsh", inputs=["a.fa"]), "kind 'englsh' is unknown.* Did you mean 'english'"),
    ],
)
def test_a_source_that_contradicts_itself_is_refused(tmp_path: Path, source: Source, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write(tmp_path, source)


def test_a_missing_file_of_any_source_is_found_before_work_begins(tmp_path: Path) -> None:
    there = fasta(tmp_path / "a.fa", {"a": dna(50)})
    with pytest.raises(MissingFileError, match=r"no\.fa does not exist"):
        write(tmp_path, Source("dna", inputs=[there]), Source("protein", inputs=["no.fa"]))
    assert list((tmp_path / "out").iterdir()) == []


def test_one_language_has_one_kind(tmp_path: Path) -> None:
    path = fasta(tmp_path / "a.fa", {"a": dna(50)})
    with pytest.raises(InputError, match="language 'x' has sources of kinds"):
        write(tmp_path, Source("x", kind="dna", inputs=[path]), Source("x", kind="protein", inputs=[path]))


def test_a_corpus_with_nothing_left_says_what_was_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no training document is left of 'dna' \(7 letters read; rejected: 4 too_short, 3 unknown\)"):
        write(tmp_path, Source("dna", inputs=[fasta(tmp_path / "a.fa", {"a": "ACGTNNN"})]))
