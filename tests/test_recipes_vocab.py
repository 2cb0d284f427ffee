"""vocab: the stage from files to a tokenizer folder, and what it refuses before anything is written."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from llama_gene import runtime
from llama_gene.config import parse
from llama_gene.errors import ConfigError, InputError, LlamaGeneError
from llama_gene.recipes.vocab import Config, Step, _check, run
from llama_gene.tokenization.tokenizer import encode_text, load_tokenizer, open_vocabulary, vocabulary_fingerprint
from tests.fixtures.tiny_vocabularies import ENGLISH, SENTENCES, genes, proteins, write_ranks, write_sentencepiece


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Write DNA as gzipped FASTA, protein as the corpus's documents, English as both."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    with gzip.open(folder / "genome.fa.gz", "wt") as handle:
        handle.writelines(f">contig{number}\n{text.lower()}\n" for number, text in enumerate(genes(80)))
    for name, texts in (("protein.train", proteins(80)), ("protein.valid", proteins(10, seed=5)), ("dna.valid", genes(10, seed=6))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(texts)))
    (folder / "english.txt").write_text("\n".join(ENGLISH + SENTENCES * 2))
    (folder / "empty.fa").write_text("")
    (folder / "letters.fa").write_text(">a\nACGTJJJ\n")
    return folder


def steps(inputs: Path, size: int = 100) -> list[Step]:
    dna = Step(kind="dna", input=[str(inputs / "genome.fa.gz")], size=size)
    protein = Step(
        kind="protein", input=[str(inputs / "protein.train.jsonl")], size=size
    )  # fmt: skip
    return [dna, protein]


@pytest.mark.parametrize(("write", "kind"), [(write_sentencepiece, "sentencepiece"), (write_ranks, "tiktoken")])
def test_two_steps_behind_a_base_make_a_folder_that_autotokenizer_loads(write: object, kind: str, inputs: Path, tmp_path: Path) -> None:
    base = write(tmp_path / "tokenizer.model")  # type: ignore[operator]
    texts = {"dna": [str(inputs / "dna.valid.jsonl")], "english": [str(inputs / "english.txt")]}
    config = Config(base=str(base), steps=steps(inputs), out=tmp_path / "out", **texts)
    folder = run(config)
    manifest = runtime.read_manifest(folder, "vocab")
    summary = json.loads((folder / "report.json").read_text())
    num_base = open_vocabulary(base).num_ids
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert manifest["kind"] == kind and manifest["vocab_size"] == num_base + 200 == len(tokenizer)
    assert [(step["kind"], step["first_id"], step["size"]) for step in manifest["steps"]] == [
        ("dna", num_base, 100),
        ("protein", num_base + 100, 100),
    ]
    assert manifest["steps"][0]["inputs"][0]["file"] == "genome.fa.gz" and len(manifest["steps"][0]["inputs"][0]["sha256"]) == 16
    assert manifest["vocabulary"] == vocabulary_fingerprint(tokenizer) == summary["fingerprint"]
    assert manifest["base"]["vocabulary"] == vocabulary_fingerprint(load_tokenizer(base))
    assert summary["bases_per_token"] > 1.5 and summary["english_lines"] > 0
    assert {"tokenizer.json", "tokenizer.model", "chat_template.jinja", "report.md", "report_lengths.png", "steps"} <= {
        path.name for path in folder.iterdir()
    }
    assert "### Instruction:" in tokenizer.apply_chat_template([{"role": "user", "content": "Read ACGT."}], tokenize=False)


def test_law_04_two_runs_of_one_step_are_one_run_of_two_and_leave_dna_alone(inputs: Path, tmp_path: Path) -> None:
    base = str(write_sentencepiece(tmp_path / "tokenizer.model"))
    dna, protein = steps(inputs)
    first = run(Config(base=base, steps=[dna], out=tmp_path / "dna"))
    second = run(Config(base=str(first), steps=[protein], out=tmp_path / "both"))
    together = run(Config(base=base, steps=steps(inputs), out=tmp_path / "together"))
    assert (second / "tokenizer.model").read_bytes() == (together / "tokenizer.model").read_bytes()
    assert (second / "tokenizer.json").read_bytes() == (together / "tokenizer.json").read_bytes()
    assert [step["kind"] for step in runtime.read_manifest(second)["steps"]] == ["dna", "protein"]
    before, after = load_tokenizer(first), load_tokenizer(second)
    assert all(encode_text(before, text) == encode_text(after, text) for text in [*genes(50, seed=41), "NANNACGGN" * 9])


def test_law_15_the_same_inputs_and_seed_give_the_same_bytes(inputs: Path, tmp_path: Path) -> None:
    base = str(write_ranks(tmp_path / "tokenizer.model"))
    dna = Step(kind="dna", input=[str(inputs / "genome.fa.gz")], size=50, max_letters=12_000)
    folders = [run(Config(base=base, steps=[dna], seed=seed, out=tmp_path / name)) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    files = [(folder / "tokenizer.json").read_bytes() for folder in folders]
    assert files[0] == files[1] != files[2]
    facts = runtime.read_manifest(folders[0])["steps"][0]
    assert 10_000 < facts["letters_used"] <= 12_000 < facts["letters_read"]


def test_a_base_alone_is_trained_from_text(inputs: Path, tmp_path: Path) -> None:
    folder = run(Config(base_size=420, base_inputs=[str(inputs / "english.txt")], out=tmp_path / "base"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == 420 and (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    assert runtime.read_manifest(folder, "vocab")["steps"] == [] and not (folder / "report.json").exists()
    spliced = run(Config(base=str(folder), steps=steps(inputs, 30), out=tmp_path / "spliced"))
    assert len(AutoTokenizer.from_pretrained(spliced)) == 480


def test_a_base_and_its_steps_in_one_run(inputs: Path, tmp_path: Path) -> None:
    folder = run(Config(base_size=420, base_inputs=[str(inputs / "english.txt")], steps=steps(inputs, 30), out=tmp_path / "all"))
    assert len(AutoTokenizer.from_pretrained(folder)) == 480 and json.loads((folder / "report.json").read_text())["pieces"] == 60


def test_unified_is_one_dictionary_of_dna_and_english(inputs: Path, tmp_path: Path) -> None:
    both = [str(inputs / "genome.fa.gz"), str(inputs / "english.txt")]
    folder = run(Config(method="unified", base_size=500, base_inputs=both, out=tmp_path / "unified"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == 500 and tokenizer.eos_token == "<|endoftext|>"
    assert runtime.read_manifest(folder)["kind"] == "bpe"


def test_inputs_are_looked_up_in_data_dir(inputs: Path, tmp_path: Path) -> None:
    write_ranks(inputs / "tokenizer.model")
    config = Config(base="tokenizer.model", data_dir=inputs, steps=[Step(input=["genome.fa.gz"], size=20)], out=tmp_path / "out")
    assert runtime.read_manifest(run(config))["steps"][0]["size"] == 20


def bad_configs(inputs: Path, base: str) -> list[tuple[Config, type[LlamaGeneError], str]]:
    fasta = str(inputs / "genome.fa.gz")
    return [
        (Config(), ConfigError, "neither base nor base_inputs"),
        (Config(base=base), ConfigError, "nothing to splice"),
        (Config(base=base, base_inputs=[fasta]), ConfigError, "both given"),
        (Config(base=base, steps=[Step(input=[])]), ConfigError, "has no input"),
        (Config(base=base, steps=[Step(kind="protien", input=[fasta])]), ConfigError, "protein"),
        (Config(base=base, steps=[Step(input=[fasta], size=0)]), ConfigError, "size 0"),
        (Config(method="unified", base_inputs=[fasta], steps=[Step(input=[fasta])]), ConfigError, "Leave steps out"),
        (Config(base=base, steps=[Step(input=[str(inputs / "empty.fa")], size=5)]), InputError, "empty.fa"),
        (Config(base=base, steps=[Step(input=[str(inputs / "letters.fa")], size=5)]), InputError, "letters.fa, line 2"),
        (Config(base=base, steps=[Step(input=[fasta], size=10**6)]), InputError, "the corpus gives"),
        (Config(base=base, steps=[Step(input=[fasta], size=5, max_letters=7)]), InputError, "max_letters 7"),
        (Config(base=str(inputs / "english.txt"), steps=[Step(input=[fasta], size=5)]), InputError, "english.txt"),
        (Config(base=base, steps=[Step(input=[str(inputs / "none.fa")], size=5)]), LlamaGeneError, "none.fa"),
        (Config(base_inputs=[str(inputs / "english.txt")], base_size=10), InputError, "base_size 10"),
    ]


def test_bad_input_is_one_line_and_leaves_nothing(inputs: Path, tmp_path: Path) -> None:
    base = str(write_ranks(tmp_path / "tokenizer.model"))
    out = tmp_path / "outputs" / "out"
    for config, kind, message in bad_configs(inputs, base):
        config.out = out
        with pytest.raises(kind, match=message) as caught:
            run(config)
        assert "\n" not in str(caught.value)
        assert not out.parent.exists() or list(out.parent.iterdir()) == []


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "vocab" / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_of_the_folder_is_read_and_complete(path: Path) -> None:
    config = parse("vocab", Config, ["--config", str(path)])
    _check(config)
    assert str(config.out) == f"runs/vocab_{path.stem}"
    if path.stem in ("llama2", "llama3"):
        ids = {"llama2": 32_000, "llama3": 128_256}[path.stem] + sum(step.size for step in config.steps)
        assert ids % 128 == 0 and str(f"{ids:,}") in path.read_text()
