"""The stage `pack`: rows and a manifest that names their tokenizer, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gene.data.corpus import CutPolicy, Source
from llama_gene.errors import ConfigError, InputError, LlamaGeneError
from llama_gene.recipes import corpus
from llama_gene.recipes.pack import Config, run
from llama_gene.runtime import read_manifest
from llama_gene.tokenization.tokenizer import vocabulary_fingerprint
from tests.tiny_models import tiny_tokenizer


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "a.fa").write_text(">a\nACGTTGCACCNNGATTACAGATTACA\n")
    sources = [Source("dna", inputs=[str(tmp_path / "a.fa")]), Source("phage", kind="dna", inputs=[str(tmp_path / "a.fa")])]
    corpus.run(corpus.Config(sources, CutPolicy(5, 20, valid_fraction=0.0), output_dir=tmp_path / "corpus"))
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return Config(tmp_path / "corpus", str(tmp_path / "tokenizer"), row_length=8, output_dir=tmp_path / "rows")


def test_the_manifest_names_the_tokenizer_and_counts_the_rows(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = read_manifest(run(config), "pack")
    counts = {"train": {"documents": 2, "letters": 24, "tokens": 28, "rows": 4}}
    assert manifest["languages"] == {"dna": counts, "phage": counts}
    assert manifest["vocabulary"] == vocabulary_fingerprint(tiny_tokenizer()) and manifest["row_length"] == 8
    assert "pack dna train: 28 tokens in 4 rows, 0.86 letters a token" in capsys.readouterr().err


def test_only_the_languages_asked_for_are_packed(config: Config) -> None:
    config.languages = ["phage"]
    assert sorted(path.name for path in run(config).iterdir()) == ["manifest.json", "phage.train"]


def test_the_tokenizer_is_found_from_another_folder(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.output_dir is not None
    monkeypatch.chdir(config.output_dir.parent)
    config.tokenizer = "tokenizer"
    assert read_manifest(run(config), "pack")["tokenizer"] == str(config.output_dir.parent / "tokenizer")


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"corpus": None}, ConfigError, "corpus, tokenizer or output_dir is not given"),
        ({"tokenizer": None}, ConfigError, "corpus, tokenizer or output_dir is not given"),
        ({"row_length": 1}, ConfigError, "row_length is 1; expected at least 8 tokens"),
        ({"row_length": -512}, ConfigError, "row_length is -512"),
        ({"languages": ["phages"]}, ConfigError, "has no language 'phages'; expected one of dna, phage. Did you mean 'phage'"),
        ({"tokenizer": "./no_tokenizer"}, InputError, "no_tokenizer does not exist; expected a tokenizer folder"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    config: Config, changes: dict[str, object], kind: type[LlamaGeneError], message: str
) -> None:
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises(kind, match=message):
        run(config)
    assert config.output_dir is not None and not config.output_dir.exists()


def test_a_tokenizer_without_an_end_of_text_is_refused(config: Config) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(str(config.tokenizer))
    with pytest.raises(InputError, match="has no end-of-text token"):
        run(config)
