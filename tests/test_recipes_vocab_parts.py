"""vocab train, vocab splice, vocab report: the three commands by themselves, as a user types them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from llama_gene import cli, runtime
from llama_gene.tokenization.bpe import reference_encode
from llama_gene.tokenization.standalone import train_sentencepiece_base
from llama_gene.tokenization.tokenizer import encode_batch, load_tokenizer, open_vocabulary
from tests.fixtures.tiny_vocabularies import ENGLISH, SENTENCES, genes, proteins, write_ranks, write_sentencepiece

WRITE = {"sentencepiece": write_sentencepiece, "tiktoken": write_ranks}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Write a genome in two gzipped FASTA files, proteins a line each, and English."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, seed in (("a", 0), ("b", 1)):
        with gzip.open(folder / f"{name}.fa.gz", "wt") as handle:
            handle.writelines(f">contig{number}\n{text}\n" for number, text in enumerate(genes(60, seed=seed)))
    (folder / "protein.txt").write_text("\n".join(proteins(100)))
    (folder / "english.txt").write_text("\n".join([*ENGLISH, *SENTENCES, "HIV and SNARE, a KRAB of GALT."]))
    (folder / "empty.fa").write_text("")
    return folder


def run(*arguments: object) -> int:
    return cli.main(["vocab", *map(str, arguments)])


@pytest.mark.parametrize("kind", ["sentencepiece", "tiktoken"])
def test_the_commands_of_the_issue_make_a_tokenizer_and_a_report(kind: str, texts: Path, tmp_path: Path) -> None:
    base = WRITE[kind](tmp_path / "base.bin")  # told apart by content, not by name
    size = 60
    assert (
        run(
            "train",
            "--kind",
            "dna",
            "--base",
            base,
            "--input",
            texts / "a.fa.gz",
            texts / "b.fa.gz",
            "--size",
            size,
            "--out",
            tmp_path / "dna",
        )
        == 0
    )
    assert (
        run("train", "--kind", "protein", "--base", base, "--input", texts / "protein.txt", "--size", size, "--out", tmp_path / "protein")
        == 0
    )
    assert run("splice", "--base", base, "--pieces", tmp_path / "dna", tmp_path / "protein", "--out", tmp_path / "both") == 0
    out = tmp_path / "reports" / "report.json"
    assert run(
        "report", "--tokenizer", tmp_path / "both", "--base", base, "--dna", texts / "a.fa.gz", texts / "b.fa.gz",
        "--protein", texts / "protein.txt", "--english", texts / "english.txt", "--out", out,
    ) == 0  # fmt: skip
    numbers = json.loads(out.read_text())
    keys = (
        "pieces unreachable dead duplicates bases_per_token residues_per_token english_lines english_lines_changed english_tokens_changed "
        "roundtrip_failures library_mismatches protein_share_of_dna snv_tokens_changed phase_stability rc_stability fingerprint"
    )
    assert set(keys.split()) <= set(numbers) and set(numbers["by_source"]) == {"a.fa.gz", "b.fa.gz", "protein.txt", "english.txt"}
    assert (numbers["pieces"], numbers["unreachable"], numbers["duplicates"], numbers["flags"]) == (2 * size, 0, 0, [])
    assert (numbers["roundtrip_failures"], numbers["library_mismatches"], numbers["protein_share_of_dna"]) == (0, 0, 0.0)
    full, tokenizer = open_vocabulary(tmp_path / "both"), AutoTokenizer.from_pretrained(tmp_path / "both")
    assert len(tokenizer) == open_vocabulary(base).num_ids + 2 * size
    lines = [*genes(20, seed=9), *proteins(20, seed=9), *(line for line in ENGLISH if not line.startswith(" "))]
    assert encode_batch(tokenizer, lines) == full.native_encode(lines)
    new = [piece for piece in full.pieces() if piece not in open_vocabulary(base).pieces()]
    assert all(reference_encode(piece, full.rank) == [piece] for piece in new)
    steps = runtime.read_manifest(tmp_path / "both", "vocab")["steps"]
    assert [step["kind"] for step in steps] == ["dna", "protein"] and (tmp_path / "both/steps/2_protein.json").is_file()


def test_law_04_splicing_by_parts_is_splicing_from_one_yaml(texts: Path, tmp_path: Path) -> None:
    base = write_sentencepiece(tmp_path / "tokenizer.model")
    assert run("train", "--kind", "dna", "--base", base, "--input", texts / "a.fa.gz", "--size", 50, "--out", tmp_path / "dna") == 0
    assert run("splice", "--base", base, "--pieces", tmp_path / "dna", "--out", tmp_path / "one") == 0
    assert (
        run(
            "train",
            "--kind",
            "protein",
            "--base",
            tmp_path / "one",
            "--input",
            texts / "protein.txt",
            "--size",
            50,
            "--out",
            tmp_path / "p",
        )
        == 0
    )
    assert run("splice", "--base", tmp_path / "one", "--pieces", tmp_path / "p", "--out", tmp_path / "two") == 0
    steps = [{"kind": kind, "size": 50, "input": [str(texts / name)]} for kind, name in (("dna", "a.fa.gz"), ("protein", "protein.txt"))]
    (tmp_path / "vocab.yaml").write_text(json.dumps({"base": str(base), "steps": steps}))
    assert run("--config", tmp_path / "vocab.yaml", "--out", tmp_path / "yaml") == 0
    for name in ("tokenizer.json", "tokenizer.model"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "yaml" / name).read_bytes()
    before, after = load_tokenizer(tmp_path / "one"), load_tokenizer(tmp_path / "two")
    assert encode_batch(before, genes(30, seed=8)) == encode_batch(after, genes(30, seed=8))


def test_law_04_strict_mode_changes_no_english(texts: Path, tmp_path: Path) -> None:
    base = write_sentencepiece(tmp_path / "tokenizer.model")
    (texts / "protein.txt").write_text("\n".join([*proteins(60), *["HIVSNAREKRABGALT"] * 50]))
    changed = {}
    for name, strict in (("free", ()), ("strict", ("--strict", texts / "english.txt"))):
        common = ("--kind", "protein", "--base", base, "--input", texts / "protein.txt", "--size", 60)
        assert run("train", *common, *strict, "--out", tmp_path / name / "pieces") == 0
        assert run("splice", "--base", base, "--pieces", tmp_path / name / "pieces", "--out", tmp_path / name / "full") == 0
        report = tmp_path / name / "report.json"
        assert (
            run("report", "--tokenizer", tmp_path / name / "full", "--base", base, "--english", texts / "english.txt", "--out", report) == 0
        )
        changed[name] = json.loads(report.read_text())["english_tokens_changed_outside_genes"]
    assert changed["free"] > 0 == changed["strict"]
    facts = runtime.read_manifest(tmp_path / "strict/pieces")["strict"]
    assert facts["strings"] > 0 and facts["inputs"][0]["file"] == "english.txt"


@pytest.mark.parametrize("kind", ["sentencepiece", "tiktoken"])
def test_the_papers_method_by_command(kind: str, texts: Path, tmp_path: Path) -> None:
    base = WRITE[kind](tmp_path / "tokenizer.model")
    common = ("--kind", "dna", "--method", "paper", "--input", texts / "a.fa.gz", "--size", 400)
    assert run("train", *common, "--out", tmp_path / "pieces") == 0
    assert run("splice", "--base", base, "--pieces", tmp_path / "pieces", "--method", "paper", "--out", tmp_path / "full") == 0
    step = runtime.read_manifest(tmp_path / "full")["steps"][0]
    assert step["method"] == "paper" and step["size"] + step["already_in_base"] == 400 - 3  # without <unk>, <s> and </s>
    assert json.loads((tmp_path / "full/report.json").read_text())["flags"] != []


def test_isolation_is_an_option_of_tiktoken_and_not_of_sentencepiece(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, code in (("tiktoken", 0), ("sentencepiece", 2)):
        base = WRITE[kind](tmp_path / f"{kind}.model")
        pieces, out = tmp_path / f"{kind}_pieces", tmp_path / f"{kind}_out"
        assert run("train", "--kind", "dna", "--base", base, "--input", texts / "a.fa.gz", "--size", 40, "--out", pieces) == 0
        assert run("splice", "--base", base, "--pieces", pieces, "--isolate", "true", "--out", out) == code
        assert out.exists() == (code == 0)
    tokenizer = load_tokenizer(tmp_path / "tiktoken_out")
    gene = genes(1, seed=4)[0]
    alone = encode_batch(tokenizer, [gene])[0]
    assert all(ids[-len(alone) :] == alone for ids in encode_batch(tokenizer, [f"{before}{gene}" for before in (" ", "(", "a: ", "#### ")]))
    assert "SentencePiece" in capsys.readouterr().err


def test_namespaced_letters_get_ids_of_their_own(texts: Path, tmp_path: Path) -> None:
    base = write_sentencepiece(tmp_path / "tokenizer.model")
    (tmp_path / "alphabets.yaml").write_text("- {name: twist, letters: LR, namespace: twist}\n")
    for name, more in (("3di", ()), ("twist", ("--alphabets", tmp_path / "alphabets.yaml"))):
        assert run("train", "--kind", name, "--base", base, *more, "--out", tmp_path / name) == 0
    pieces = (tmp_path / "3di", tmp_path / "twist")
    assert run("splice", "--base", base, "--pieces", *pieces, "--alphabets", tmp_path / "alphabets.yaml", "--out", tmp_path / "full") == 0
    tokenizer = load_tokenizer(tmp_path / "full")
    first = open_vocabulary(base).num_ids
    assert encode_batch(tokenizer, ["<3di:a><3di:c><twist:r>"])[0][-3:] == [first, first + 1, first + 21]


@pytest.mark.parametrize("kind", ["sentencepiece", "tiktoken"])
def test_rna_is_one_more_alphabet(kind: str, texts: Path, tmp_path: Path) -> None:
    base = WRITE[kind](tmp_path / "tokenizer.model")
    (texts / "rna.txt").write_text("\n".join(text.replace("T", "U") for text in genes(60)))
    assert run("train", "--kind", "rna", "--base", base, "--input", texts / "rna.txt", "--size", 40, "--out", tmp_path / "rna") == 0
    pieces = (tmp_path / "rna/pieces.txt").read_text().split()
    assert len(pieces) == 40 and any("U" in piece for piece in pieces) and not any("T" in piece for piece in pieces)


def test_unified_is_a_tokenizer_of_its_own(texts: Path, tmp_path: Path) -> None:
    both = (texts / "a.fa.gz", texts / "english.txt")
    assert run("train", "--kind", "unified", "--input", *both, "--size", 500, "--out", tmp_path / "unified") == 0
    assert len(AutoTokenizer.from_pretrained(tmp_path / "unified")) == 500


def test_bad_input_is_one_line_exit_2_and_leaves_nothing(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_sentencepiece(tmp_path / "tokenizer.model")
    broken = tmp_path / "broken.model"
    broken.write_bytes(base.read_bytes()[:-7])
    special = tmp_path / "special.txt"
    special.write_text("<s>\n")
    fasta = texts / "a.fa.gz"
    cut_short = texts / "cut_short.fa.gz"
    cut_short.write_bytes(fasta.read_bytes()[:400])
    gapped = tmp_path / "gapped.model"
    lines = write_ranks(tmp_path / "ranks.model").read_bytes().splitlines(keepends=True)
    gapped.write_bytes(b"".join(lines[:300] + lines[301:]))
    marked = tmp_path / "marked.txt"
    marked.write_text("\u2581ACGT\n", encoding="utf-8")
    out = tmp_path / "out"
    train = ("train", "--kind", "dna", "--out", out)
    cases: list[tuple[tuple[object, ...], str]] = [
        ((*train, "--base", base, "--input", texts / "empty.fa"), "empty.fa"),
        ((*train, "--base", base, "--input", fasta, "--size", 3), "at least 4, the letters of the alphabet"),
        ((*train, "--base", fasta, "--input", fasta), "a.fa.gz"),
        ((*train, "--base", broken, "--input", fasta, "--size", 20), "broken.model"),
        ((*train, "--base", base, "--input", cut_short), "cannot be decompressed"),
        ((*train, "--base", base, "--input", texts / "protein.txt"), "set kind: protein"),
        ((*train, "--base", gapped, "--input", fasta, "--size", 20), "at most one gap of 256"),
        ((*train, "--base", base, "--input", fasta, "--size", 20, "--min_length", 5, "--max_length", 4), "min_length 5, max_length 4"),
        ((*train, "--base", base, "--input", fasta, "--size", 20, "--strict", texts / "nowhere.txt"), "nowhere.txt"),
        ((*train, "--base", base, "--input", fasta, "--size", 20, "--strict", texts / "empty.fa"), "empty.fa"),
        ((*train, "--input", fasta), "no base is given"),
        ((*train, "--base", base), "has no input"),
        ((*train, "--base", base, "--input", texts / "nowhere.fa"), "nowhere.fa"),
        ((*train, "--base", base, "--inputs", fasta), "input"),
        (("train", "--kind", "dan", "--base", base, "--input", fasta, "--out", out), "dna"),
        ((*train, "--base", base, "--input", fasta, "--size", 10**6), "the corpus gives"),
        ((*train, "--base", base, "--input", fasta, "--method", "paper", "--strict", fasta), "strict"),
        (("splice", "--base", base, "--pieces", special, "--out", out), "<s>"),
        (("splice", "--base", base, "--pieces", tmp_path / "nowhere", "--out", out), "nowhere"),
        (("splice", "--base", base, "--pieces", marked, "--out", out), "is not a run of letters"),
        (("splice", "--base", base, "--pieces", fasta, "--out", out), "is not text"),
        (("splice", "--base", base, "--pieces", base, "--out", out), "splice with --method paper"),
        (("splice", "--base", base, "--out", out), "pieces"),
        (("report", "--tokenizer", base, "--dna", texts / "protein.txt", "--out", tmp_path / "out.json"), "set kind: protein"),
        (("report", "--tokenizer", texts / "english.txt", "--out", out), "json"),
        (("report", "--tokenizer", texts / "english.txt", "--out", tmp_path / "out.json"), "english.txt"),
        (("report", "--tokenizer", broken, "--out", tmp_path / "out.json"), "broken.model"),
    ]
    for arguments, words in cases:
        assert run(*arguments) == 2, arguments
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert words in line and "Traceback" not in line, (arguments, line)
        assert not out.exists() and not (tmp_path / "out.json").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_read_only_place_is_refused_before_any_work(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "out"
    assert run("train", "--kind", "dna", "--base", "nowhere", "--input", texts / "a.fa.gz", "--out", out) == 2
    assert "cannot be made" in capsys.readouterr().err


def test_law_03_letters_that_the_base_lacks_become_pieces_also_those_of_the_n_ladder(texts: Path, tmp_path: Path) -> None:
    base = tmp_path / "lower.model"
    train_sentencepiece_base([line.lower() for line in ENGLISH * 3 + SENTENCES], 340, base)
    assert "N" not in open_vocabulary(base).pieces()
    assert run("train", "--kind", "dna", "--base", base, "--input", texts / "a.fa.gz", "--size", 40, "--out", tmp_path / "dna") == 0
    assert run("splice", "--base", base, "--pieces", tmp_path / "dna", "--out", tmp_path / "full") == 0
    full, lines = open_vocabulary(tmp_path / "full"), ["NNNNNNNN", *genes(5)]
    assert encode_batch(load_tokenizer(tmp_path / "full"), lines) == full.native_encode(lines)


def test_an_output_folder_that_holds_an_input_is_refused(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, out = write_sentencepiece(tmp_path / "tokenizer.model"), tmp_path / "out"
    common = ("train", "--kind", "dna", "--base", base, "--size", 20, "--out", out)
    assert run(*common, "--input", texts / "a.fa.gz") == 0
    (out / "mine.txt").write_text("ACGT" * 50)
    assert run(*common, "--input", out / "mine.txt") == 2
    assert "lies in the output folder" in capsys.readouterr().err and (out / "mine.txt").is_file()
    assert run("splice", "--base", base, "--pieces", out, "--out", tmp_path / "full") == 0
    assert run("splice", "--base", tmp_path / "full", "--pieces", out, "--out", tmp_path / "full") == 2


def test_damaged_things_are_one_line(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_sentencepiece(tmp_path / "tokenizer.model")
    flipped = bytearray(base.read_bytes())
    flipped[flipped.find(b"<0x41>") + 1] = ord("1")
    (tmp_path / "flipped.model").write_bytes(flipped)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    common = ("--input", texts / "a.fa.gz", "--size", 20, "--out", tmp_path / "out")
    assert run("train", "--kind", "dna", "--base", base, "--input", texts / "a.fa.gz", "--size", 20, "--out", tmp_path / "pieces") == 0
    manifest = json.loads((tmp_path / "pieces" / "manifest.json").read_text())
    (tmp_path / "pieces" / "manifest.json").write_text(json.dumps({key: value for key, value in manifest.items() if key != "method"}))
    cases = [
        (("train", "--base", tmp_path / "flipped.model", *common), "flipped.model is damaged"),
        (("train", "--base", tmp_path / "config", *common), "holds no tokenizer"),
        (("train", "--base", tmp_path / "nowhere.model", *common), "does not exist"),
        (("train", "--base", base, "--strict", texts / "b.fa.gz", *common), "holds sequences"),
        (("train", "--base", base, "--kind", "3di", *common), "Leave them out"),
        (("splice", "--base", base, "--pieces", tmp_path / "pieces", "--out", tmp_path / "out"), "has no 'method'"),
        (("splice", "--base", base, "--pieces", tmp_path / "pieces", "--template", "alpace", "--out", tmp_path / "out"), "alpaca"),
        (("report", "--tokenizer", tmp_path / "flipped.model", "--out", tmp_path / "out.json"), "is damaged"),
        (("report", "--tokenizer", base, "--compare", base, "--out", tmp_path / "out.json"), "compare"),
    ]
    for arguments, words in cases:
        capsys.readouterr()
        assert run(*arguments) == 2, arguments
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and words in lines[0], (arguments, lines)
        assert not (tmp_path / "out").exists() and not (tmp_path / "out.json").exists()
