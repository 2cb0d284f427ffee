"""Corpus: every letter accounted for, held-out text that never repeats training text, the same bytes for the same seed."""

from __future__ import annotations

import gzip
import random
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gene import runtime
from llama_gene.data.corpus import read_corpus, write_corpus
from llama_gene.data.settings import ContaminationPolicy, CutPolicy, RepeatPolicy, Settings, Source, SplitPolicy
from llama_gene.errors import ConfigError, InputError, MissingFileError
from llama_gene.sequences.alphabet import reverse_complement
from llama_gene.sequences.letters import LetterPolicy


def small(valid_fraction: float = 0.2, **cut: Any) -> Settings:
    """Documents of a few letters; proteins are divided by their names, since a search finds nothing in so short ones."""
    return Settings(CutPolicy(5, 12, 20, **cut), SplitPolicy(valid_fraction, protein="record"))


def fasta(path: Path, records: dict[str, str]) -> str:
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records.items()))
    return str(path)


def dna(length: int, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices("ACGT", k=length))


def write(
    folder: Path, *sources: Source, policy: Settings | None = None, seed: int = 0, data_dir: Path | None = None, **how: Any
) -> dict[str, Any]:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    report = write_corpus(sources, policy or small(), out, data_dir, seed, **how)
    runtime.write_manifest(out, "corpus", {}, languages=report)
    return report


def texts(folder: Path, language: str, split: str) -> list[str]:
    return [text for _, text in read_corpus(folder / "out", language, split)]


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
    assert (counts["kind"], counts["records"], counts["letters_read"], counts["letters_repeated"]) == ("dna", 6, 55, 0)
    assert (counts["letters_kept"], counts["documents"]) == ({"train": 24}, {"train": 3})
    assert counts["letters_rejected"] == {"unknown": 8, "repeat of an earlier document": 20, "too_short": 3}
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
        letters = LetterPolicy(soft_masked="upper" if uppercase else "keep")
        source = Source("dna", inputs=inputs, max_letters=max_letters, letters=letters)
        counts = write(folder, source, policy=small(valid_fraction), seed=seed)["dna"]
        total = 12 + sum(map(len, genome))
        assert counts["letters_read"] == accounted(counts)  # the record in which the limit falls is read to its end, and counted
        assert counts["letters_read"] - counts["letters_rejected"].get("beyond max_letters", 0) == min(max_letters or total, total)
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
        counts = write(folder, *sources, policy=small(valid_fraction))["protein"]
        assert counts["letters_read"] == 16 + sum(map(len, proteome)) == accounted(counts)


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
        written.append({path.parent.name: path.read_bytes() for path in sorted((tmp_path / name / "out").glob("*/*.jsonl"))})
    assert written[0] == written[1]
    assert written[0]["dna.train"] != written[2]["dna.train"]


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
    write(tmp_path, Source("dna", inputs=[path], split="train", letters=LetterPolicy(soft_masked="keep")))
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


def test_random_windows_overlap_and_every_letter_is_accounted_for(tmp_path: Path) -> None:
    path = fasta(tmp_path / "a.fa", {"a": dna(500) + "NNN" + dna(300, 1), "b": "ACG"})
    counts = write(tmp_path, Source("dna", inputs=[path], split="train"), policy=small(starts="random", coverage=2.0))["dna"]
    assert counts["letters_read"] == 806 and counts["letters_repeated"] > 400
    assert counts["letters_read"] + counts["letters_repeated"] == accounted(counts)
    assert counts["letters_rejected"].keys() <= {"unknown", "too_short", "not_drawn", "repeat of an earlier document"}
    assert all(5 <= len(text) <= 12 and "N" not in text for text in texts(tmp_path, "dna", "train"))


def test_both_strands_follow_one_another_in_training_and_nowhere_else(tmp_path: Path) -> None:
    source = Source("dna", inputs=[fasta(tmp_path / "a.fa", {"a": dna(200)})])
    counts = write(tmp_path, source, policy=small(strands="both"))["dna"]
    written = texts(tmp_path, "dna", "train")
    assert written[1::2] == [reverse_complement(text) for text in written[::2]] and len(written) == counts["documents"]["train"]
    assert len(texts(tmp_path, "dna", "valid")) == counts["documents"]["valid"]
    assert counts["letters_repeated"] == 160 and counts["letters_kept"] == {"train": 320, "valid": 40}


def test_the_origin_of_a_circle_is_no_boundary(tmp_path: Path) -> None:
    circle = dna(60)
    path = fasta(tmp_path / "a.fa", {"plasmid": circle})
    counts = write(tmp_path, Source("dna", inputs=[path], split="train", circular=True))["dna"]
    written = "".join(texts(tmp_path, "dna", "train"))
    assert written in circle + circle and written != circle and counts["letters_kept"] == {"train": 60}
    assert all(name.startswith("plasmid@") for name, _ in read_corpus(tmp_path / "out", "dna", "train"))


def test_chromosomes_are_held_out_by_name(tmp_path: Path) -> None:
    path = fasta(tmp_path / "a.fa", {"chr1": dna(100), "chr2": dna(90, 1), "chr3": dna(80, 2)})
    settings = Settings(CutPolicy(5, 12, 20), SplitPolicy(0.0, valid_records=["chr2"], test_records=["chr3"]))
    counts = write(tmp_path, Source("dna", inputs=[path]), policy=settings)["dna"]
    assert counts["letters_kept"] == {"train": 100, "valid": 90, "test": 80}
    assert "".join(texts(tmp_path, "dna", "test")) == dna(80, 2)


def mutated(sequence: str, letters: str, share: float, rng: random.Random) -> str:
    return "".join(rng.choice(letters) if rng.random() < share else letter for letter in sequence)


def test_law_14_relatives_never_straddle_a_split_by_clusters(tmp_path: Path) -> None:
    rng, residues = random.Random(0), "ACDEFGHIKLMNPQRSTVWY"
    families = ["".join(rng.choices(residues, k=150)) for _ in range(40)]
    records = {f"f{number}_{copy}": mutated(text, residues, 0.3, rng) for number, text in enumerate(families) for copy in range(3)}
    settings = Settings(split=SplitPolicy(0.2, 0.1))
    counts = write(tmp_path, Source("protein", inputs=[fasta(tmp_path / "p.fa", records)]), policy=settings)["protein"]
    sides = {
        split: {name.partition("_")[0] for name, _ in read_corpus(tmp_path / "out", "protein", split)} for split in counts["documents"]
    }
    assert counts["documents"] == {"train": 84, "valid": 24, "test": 12}
    assert 38 <= counts["clusters"] <= 40  # chance may join a pair of families
    assert not sides["train"] & sides["valid"] and not sides["train"] & sides["test"] and not sides["valid"] & sides["test"]


def test_near_identical_genomes_and_contained_contigs_are_dropped_with_reasons(tmp_path: Path) -> None:
    rng, genome = random.Random(0), dna(20_000)
    records = {"first": genome, "strain": mutated(genome, "ACGT", 0.005, rng), "contig": reverse_complement(genome[2000:9000])}
    records |= {"mutant": mutated(genome, "ACGT", 0.4, rng), "other": dna(20_000, 1)}
    counts = write(tmp_path, Source("dna", inputs=[fasta(tmp_path / "a.fa", records)], split="train"), policy=Settings())["dna"]
    assert counts["letters_rejected"] == {"record near-identical to a longer one": 20_000, "record contained in a longer one": 7_000}
    assert sorted(counts["dropped_records"]) == [("contig", "first", "contained"), ("strain", "first", "near-identical")]
    kept = {name.partition(":")[0] for name, _ in read_corpus(tmp_path / "out", "dna", "train")}
    assert kept == {"first", "mutant", "other"}


def test_documents_that_hold_evaluation_sequences_are_dropped_and_counted_by_file(tmp_path: Path) -> None:
    genome = dna(30_000)
    rows = [genome[5000:5070], reverse_complement(genome[15_000:15_070]), dna(70, 9)]
    (tmp_path / "test.csv").write_text("sequence,label\n" + "".join(f"{row},0\n" for row in rows))
    settings = Settings(decontaminate=ContaminationPolicy(["test.csv"]))
    source = Source("dna", inputs=[fasta(tmp_path / "a.fa", {"a": genome})], split="train")
    counts = write(tmp_path, source, policy=settings, data_dir=tmp_path)["dna"]
    written = texts(tmp_path, "dna", "train")
    assert all(row[:60] not in text and reverse_complement(row)[:60] not in text for row in rows for text in written)
    assert 2 <= counts["documents_rejected"]["holds an evaluation sequence"] <= 4  # a row may lie across two fragments
    assert list(counts["evaluation_hits"].values()) == [counts["documents_rejected"]["holds an evaluation sequence"]]


def test_a_shard_ends_with_the_document_that_fills_it_and_the_shards_together_are_the_corpus(tmp_path: Path) -> None:
    paths = [fasta(tmp_path / f"{name}.fa", {name: dna(300, seed)}) for seed, name in enumerate("abc")]
    source = Source("dna", inputs=paths, split="train")
    write(tmp_path, source)
    whole = texts(tmp_path, "dna", "train")
    counts = write(tmp_path, source, shard_letters=100)["dna"]
    shards = counts["shards"]["train"]
    assert texts(tmp_path, "dna", "train") == whole and [shard["file"] for shard in shards] == [
        f"dna.train/{n:05d}.jsonl" for n in range(9)
    ]
    assert all(89 <= shard["letters"] <= 111 for shard in shards) and sum(shard["letters"] for shard in shards) == 900


def test_only_whole_records_are_circles(tmp_path: Path) -> None:
    sequence = dna(40) + "N" + dna(40, 1)
    path = fasta(tmp_path / "a.fa", {"a": sequence})
    for changes in ({"letters": LetterPolicy(ambiguous="split")}, {"max_letters": 30}):
        write(tmp_path, Source("dna", inputs=[path], split="train", circular=True, **changes))  # type: ignore[arg-type]
        assert all(text in sequence for text in texts(tmp_path, "dna", "train")), changes


def test_a_letter_limit_inside_a_record_that_the_policy_splits_is_counted(tmp_path: Path) -> None:
    path = fasta(tmp_path / "a.fa", {"a": dna(50) + "n" * 20 + dna(50, 1) + "n" + dna(60, 2), "b": dna(30, 3)})
    source = Source("dna", inputs=[path], split="train", max_letters=40, letters=LetterPolicy(soft_masked="drop"))
    counts = write(tmp_path, source)["dna"]
    assert counts["letters_read"] == 181 and counts["letters_kept"] == {"train": 40}
    assert counts["letters_rejected"] == {"soft_masked": 21, "beyond max_letters": 120}


def test_pieces_of_one_record_stay_on_one_side_and_go_by_its_name(tmp_path: Path) -> None:
    records = {f"c{number}": "N".join(dna(30, 10 * number + piece) for piece in range(4)) for number in range(12)}
    source = Source("dna", inputs=[fasta(tmp_path / "a.fa", records)], letters=LetterPolicy(ambiguous="split"))
    settings = Settings(CutPolicy(5, 12, 20), SplitPolicy(0.3, dna="record", test_records=["c3"]))
    counts = write(tmp_path, source, policy=settings)["dna"]
    sides = {split: {name.partition(":")[0] for name, _ in read_corpus(tmp_path / "out", "dna", split)} for split in counts["documents"]}
    assert sides["test"] == {"c3"} and sides["valid"] and not sides["train"] & sides["valid"]


def test_law_14_clusters_respect_a_source_that_is_given_to_one_side(tmp_path: Path) -> None:
    rng, residues = random.Random(0), "ACDEFGHIKLMNPQRSTVWY"
    families = ["".join(rng.choices(residues, k=150)) for _ in range(30)]
    given = fasta(tmp_path / "given.fa", {f"f{number}": text for number, text in enumerate(families[:10])})
    free = fasta(tmp_path / "free.fa", {f"g{number}": mutated(text, residues, 0.1, rng) for number, text in enumerate(families)})
    sources = [Source("protein", inputs=[free]), Source("protein", inputs=[given], split="train")]
    write(tmp_path, *sources, policy=Settings(split=SplitPolicy(0.5)))
    held_out = {int(name[1:]) for name, _ in read_corpus(tmp_path / "out", "protein", "valid")}
    assert held_out and min(held_out) >= 10  # no relative of what is given to training


def test_law_14_clusters_see_letters_behind_their_tokens(tmp_path: Path) -> None:
    rng, states = random.Random(0), "ACDEFGHIKLMNPQRSTVWY"
    families = ["".join(rng.choices(states, k=150)) for _ in range(20)]
    records = {f"f{number}_{copy}": mutated(text, states, 0.1, rng) for number, text in enumerate(families) for copy in range(3)}
    counts = write(tmp_path, Source("3di", inputs=[fasta(tmp_path / "s.fa", records)]), policy=Settings(split=SplitPolicy(0.3)))["3di"]
    assert counts["clusters"] == 20


def test_small_letters_repeat_capitals(tmp_path: Path) -> None:
    path = fasta(tmp_path / "a.fa", {"a": "ACGTTGCACC", "b": "acgttgcacc"})
    counts = write(tmp_path, Source("dna", inputs=[path], split="train", letters=LetterPolicy(soft_masked="keep")))["dna"]
    assert counts["letters_rejected"] == {"repeat of an earlier document": 10}


def test_the_end_of_a_protein_that_is_too_short_to_be_a_window_is_counted(tmp_path: Path) -> None:
    counts = write(tmp_path, Source("protein", inputs=[fasta(tmp_path / "p.fa", {"p": "MKTAYIAKQRQISFVKSHFSRQ"})], split="train"))[
        "protein"
    ]
    assert texts(tmp_path, "protein", "train") == ["MKTAYIAKQRQISFVKSHFS"]
    assert counts["letters_rejected"] == {"shorter than 10 residues": 2}


def test_half_of_a_character_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text('{"text": "fine"}\n{"text": "half \\ud83d"}\n')
    with pytest.raises(InputError, match=r"e\.jsonl, line 2: '\\ud83d' is half of a character"):
        write(tmp_path, Source("english", inputs=[str(tmp_path / "e.jsonl")], split="train"))


def test_changed_evaluation_sequences_are_looked_for_anew(tmp_path: Path) -> None:
    genome = dna(3000)
    source = Source("dna", inputs=[fasta(tmp_path / "a.fa", {"a": genome})], split="train")
    found = []
    for row in (dna(80, 9), genome[1000:1080]):
        (tmp_path / "e.fa").write_text(f">row\n{row}\n")
        counts = write(tmp_path, source, policy=Settings(decontaminate=ContaminationPolicy([str(tmp_path / "e.fa")])))["dna"]
        found.append(sum(counts["evaluation_hits"].values()))
    assert found[0] == 0 < found[1]


def test_pieces_of_one_protein_stay_together_in_clusters(tmp_path: Path) -> None:
    rng, residues = random.Random(3), "ACDEFGHIKLMNPQRSTVWY"
    records = {f"p{number}": "X".join("".join(rng.choices(residues, k=100)) for _ in range(3)) for number in range(20)}
    source = Source("protein", inputs=[fasta(tmp_path / "p.fa", records)], letters=LetterPolicy(ambiguous="split"))
    counts = write(tmp_path, source, policy=Settings(split=SplitPolicy(0.5)))["protein"]
    sides = {
        split: {name.partition(":")[0] for name, _ in read_corpus(tmp_path / "out", "protein", split)} for split in counts["documents"]
    }
    assert len(sides["valid"]) == 10 and not sides["train"] & sides["valid"]


def test_a_record_that_is_named_for_validation_leaves_a_source_given_to_training(tmp_path: Path) -> None:
    path = fasta(tmp_path / "a.fa", {"c1": dna(100), "c2": dna(100, 1)})
    settings = Settings(CutPolicy(5, 12, 20), SplitPolicy(0.0, valid_records=["c1"]))
    assert write(tmp_path, Source("dna", inputs=[path], split="train"), policy=settings)["dna"]["letters_kept"] == {
        "train": 100,
        "valid": 100,
    }


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([dna(80, 1), dna(80, 2).replace("T", "U")], InputError, "e.csv: 1 with letters outside the alphabet, which cannot be looked for"),
        ([dna(80, 1), dna(40, 2) + " " + dna(40, 3)], InputError, "e.csv: 1 with letters outside the alphabet"),
        (["MKTAYIAKQRQISFVKSHFSRQ"], ConfigError, "the evaluation file .*e.csv holds no sequence of kind dna"),
    ],
)
def test_evaluation_sequences_that_cannot_be_looked_for_are_refused(
    tmp_path: Path, rows: list[str], error: type[Exception], message: str
) -> None:
    (tmp_path / "e.csv").write_text("sequence,label\n" + "".join(f"{row},0\n" for row in rows))
    source = Source("dna", inputs=[fasta(tmp_path / "a.fa", {"a": dna(3000)})])
    with pytest.raises(error, match=message):
        write(tmp_path, source, policy=Settings(decontaminate=ContaminationPolicy([str(tmp_path / "e.csv")])))


def test_a_genbank_file_of_dna_is_no_source_of_protein_sequences(tmp_path: Path) -> None:
    sequence = "ACGT" * 15
    body = f"        1 {' '.join(sequence[i : i + 10] for i in range(0, 60, 10)).lower()}"
    text = f"LOCUS       G 60 bp DNA linear BCT 01-JAN-2000\nACCESSION   G\nORIGIN\n{body}\n//\n"
    (tmp_path / "g.gb").write_text(text)
    with pytest.raises(ConfigError, match=r"g\.gb holds DNA, and kind is protein; expected content: protein, or kind: dna"):
        write(tmp_path, Source("protein", inputs=[str(tmp_path / "g.gb")]))


# --- refusals --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Settings(CutPolicy(min_fragment=0)), "cut.min_fragment is 0, cut.max_fragment 1000; expected 1 <= min_fragment <= max_fragment"),
        (Settings(CutPolicy(min_fragment=-3)), "cut.min_fragment is -3"),
        (Settings(CutPolicy(min_fragment=9, max_fragment=8)), "cut.min_fragment is 9, cut.max_fragment 8"),
        (Settings(CutPolicy(max_protein=0)), "cut.max_protein is 0; expected at least 10 residues"),
        (Settings(CutPolicy(coverage=2.0)), "cut.coverage is 2.0, and starts are tiled; expected starts: random"),
        (Settings(CutPolicy(starts="random", coverage=0.0)), "cut.coverage is 0.0; expected a number above 0"),
        (Settings(split=SplitPolicy(valid_fraction=-0.1)), "split.valid_fraction is -0.1; expected at least 0 and below 1"),
        (Settings(split=SplitPolicy(valid_fraction=1.0)), "split.valid_fraction is 1.0"),
        (Settings(split=SplitPolicy(0.5, 0.5)), "split holds out 1 of all"),
        (Settings(split=SplitPolicy(valid_records=["a"], test_records=["a"])), "split names a for validation and for the test"),
        (Settings(split=SplitPolicy(valid_records=["b"])), "split names the record 'b', which no source has; expected .* such as a"),
        (Settings(repeats=RepeatPolicy(near_identity=0.5)), "repeats.near_identity is 0.5; expected 0.9 to 1, or 0"),
        (Settings(repeats=RepeatPolicy(sketch_scaled=0)), "repeats.sketch_scaled is 0"),
    ],
)
def test_sizes_that_cut_nothing_are_refused(tmp_path: Path, policy: Settings, message: str) -> None:
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
