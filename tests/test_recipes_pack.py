"""The stage `pack`: rows and a manifest that names their tokenizer, or nothing; resumed, reused, or made anew."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llama_gene.data import rows as rows_module
from llama_gene.errors import ConfigError, InputError, LlamaGeneError, MismatchError
from llama_gene.recipes import pack
from llama_gene.recipes.pack import Config, run
from llama_gene.runtime import file_hash, read_manifest
from llama_gene.tokenization.tokenizer import vocabulary_fingerprint
from tests.fixtures.documents import write_documents
from tests.tiny_models import tiny_tokenizer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    texts = [["ACGTTGCACC", "GATTACAGATTACA"]]
    write_documents(tmp_path / "corpus", {"dna": {"train": texts}, "phage": {"train": texts}})
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return Config(tmp_path / "corpus", str(tmp_path / "tokenizer"), row_length=8, output_dir=tmp_path / "rows")


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_manifest_names_the_tokenizer_and_counts_the_rows(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(config)
    manifest = read_manifest(folder, "pack")
    sums = {"documents": 2, "letters": 24, "bytes": 24, "tokens": 28, "rows": 4, "unused_tokens": 4, "cut_documents": 2}
    for language in ("dna", "phage"):
        facts = manifest["languages"][language]["train"]
        shard = {"file": f"{language}.train/00000.arrow", "rows": 4, "file_bytes": (folder / facts["shards"][0]["file"]).stat().st_size}
        assert {name: facts[name] for name in sums} == sums
        assert [{name: value for name, value in found.items() if name != "key"} for found in facts["shards"]] == [shard]
    assert manifest["vocabulary"] == vocabulary_fingerprint(tiny_tokenizer()) and manifest["row_length"] == 8
    assert manifest["packing"] == "concatenate"
    said = "pack dna train: 28 tokens in 4 rows, 0.86 letters a token; 12.5 % of the rows' places unused, 100.0 % of the documents cut"
    assert said in capsys.readouterr().err


def test_best_fit_cuts_only_what_is_longer_than_a_row(config: Config) -> None:
    config.row_length, config.packing = 16, "best_fit"
    facts = read_manifest(run(config), "pack")["languages"]["dna"]["train"]
    assert (facts["rows"], facts["unused_tokens"], facts["cut_documents"]) == (2, 4, 0)


def test_only_the_languages_asked_for_are_packed(config: Config) -> None:
    config.languages = ["phage"]
    assert sorted(path.name for path in run(config).iterdir()) == ["manifest.json", "phage.train"]


def test_the_tokenizer_is_found_from_another_folder(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.output_dir is not None
    monkeypatch.chdir(config.output_dir.parent)
    config.tokenizer = "tokenizer"
    assert read_manifest(run(config), "pack")["tokenizer"] == str(config.output_dir.parent / "tokenizer")


def test_a_finished_output_is_reused_without_loading_the_tokenizer(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(run(config))
    monkeypatch.setattr("llama_gene.tokenization.tokenizer.load_tokenizer", lambda name: pytest.fail("the tokenizer was loaded"))
    config.workers = 2  # changes no row
    assert content(run(config)) == before
    assert f"pack: unchanged, {config.output_dir} is reused" in capsys.readouterr().err


def change_a_document(corpus: Path) -> None:
    """Change a letter of a corpus, and its manifest with it."""
    shard, manifest = corpus / "dna.train" / "00000.jsonl", corpus / "manifest.json"
    before = file_hash(shard)
    shard.write_text(shard.read_text().replace("GATTACA", "CATTACA"))
    manifest.write_text(manifest.read_text().replace(before, file_hash(shard)))


def test_a_shard_that_is_not_the_one_the_corpus_wrote_is_refused(config: Config) -> None:
    assert config.corpus is not None
    shard = config.corpus / "dna.train" / "00000.jsonl"
    shard.write_text(shard.read_text()[:-30])
    with pytest.raises(MismatchError, match=r"dna\.train/00000\.jsonl was changed or cut; expected the file that `corpus` wrote"):
        run(config)


@pytest.mark.parametrize("change", ["documents", "tokenizer", "row_length", "packing", "languages", "a shard that is gone", "format"])
def test_what_changes_the_rows_makes_new_ones(config: Config, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.corpus is not None
    folder = run(config)
    before = read_manifest(folder, "pack")
    if change == "documents":
        change_a_document(config.corpus)
    elif change == "tokenizer":
        tiny_tokenizer(("AC",)).save_pretrained(str(config.tokenizer))
    elif change == "row_length":
        config.row_length = 9
    elif change == "packing":
        config.packing = "best_fit"
    elif change == "languages":
        config.languages = ["dna"]
    elif change == "format":
        monkeypatch.setattr(rows_module, "FORMAT", 0)
    else:
        (folder / "dna.train" / "00000.arrow").unlink()
    after = read_manifest(run(config), "pack")
    assert (after == before) == (change == "a shard that is gone")
    assert (folder / "dna.train" / "00000.arrow").is_file()
    if change == "documents":
        assert after["languages"]["dna"] != before["languages"]["dna"] and after["languages"]["phage"] == before["languages"]["phage"]


def test_of_a_changed_corpus_only_the_changed_shards_are_packed(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.corpus is not None and config.output_dir is not None
    run(config)
    change_a_document(config.corpus)
    with monkeypatch.context() as patch:
        packed = spy_on_shards(patch)
        changed = content(run(config))
    assert [Path(path).parent.name for path in packed] == ["dna.train"]
    config.output_dir = config.output_dir.with_name("anew")
    anew = content(run(config))
    assert changed.pop("manifest.json") == anew.pop("manifest.json").replace(b"/anew", b"/rows") and changed == anew


def test_another_end_of_text_makes_new_rows(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    run(config)
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<unk>"  # the same vocabulary
    tokenizer.save_pretrained(str(config.tokenizer))
    packed = spy_on_shards(monkeypatch)
    run(config)
    assert len(packed) == 2


def spy_on_shards(patch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that the paths of the shards which are packed from now on go to."""
    packed: list[str] = []
    write_shard = rows_module.write_shard

    def note(documents: Any, *rest: Any) -> dict[str, int]:
        packed.append(str(rest[-1]))
        return write_shard(documents, *rest)

    patch.setattr(rows_module, "write_shard", note)
    return packed


def test_an_interrupted_run_goes_on_with_the_shards_that_it_has(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.output_dir is not None
    whole = content(run(config))
    shutil.rmtree(config.output_dir)
    packed: list[str] = []

    def stop_at_the_second(documents: Any, *rest: Any) -> dict[str, int]:
        packed.append(str(rest[-1]))
        if len(packed) == 2:
            raise KeyboardInterrupt
        return write_shard(documents, *rest)

    write_shard = rows_module.write_shard
    monkeypatch.setattr(rows_module, "write_shard", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    work = config.output_dir.with_name(".rows.work")
    assert not config.output_dir.exists() and (work / "dna.train" / "00000.json").is_file()
    (work / "dna.train" / ".00000.arrow.1.part").write_bytes(b"half")  # what a SIGKILL leaves
    assert content(run(config)) == whole
    assert [Path(path).parent.name for path in packed] == ["dna.train", "phage.train", "phage.train"]
    assert sorted(path.name for path in config.output_dir.parent.iterdir()) == ["corpus", "rows", "tokenizer"]


def test_law_15_killed_anywhere_the_rows_are_the_same(tmp_path: Path) -> None:
    """SIGKILL when 1 and when 7 of twelve shards are there, then a run to the end."""
    texts = [[("ACGTTGCACC" * 30)[number:] for number in range(200)] for _ in range(12)]
    write_documents(tmp_path / "corpus", {"dna": {"train": texts}})
    tiny_tokenizer(("AC",)).save_pretrained(tmp_path / "tokenizer")
    whole = run(Config(tmp_path / "corpus", str(tmp_path / "tokenizer"), row_length=64, output_dir=tmp_path / "whole"))
    code = (
        "import sys, pathlib; from llama_gene.recipes.pack import Config, run; folder = pathlib.Path(sys.argv[1]);"
        "run(Config(folder / 'corpus', str(folder / 'tokenizer'), row_length=64, output_dir=folder / 'killed'))"
    )
    done = tmp_path / ".killed.work"
    for shards in (1, 7):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(done.glob("*/*.arrow"))) < shards:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed").exists()
    run(Config(tmp_path / "corpus", str(tmp_path / "tokenizer"), row_length=64, output_dir=tmp_path / "killed"))
    ours, theirs = content(tmp_path / "killed"), content(whole)
    assert ours.pop("manifest.json").replace(b"/killed", b"/whole") == theirs.pop("manifest.json") and ours == theirs


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"corpus": None}, ConfigError, "corpus, tokenizer or output_dir is not given"),
        ({"tokenizer": None}, ConfigError, "corpus, tokenizer or output_dir is not given"),
        ({"row_length": 1}, ConfigError, "row_length is 1; expected at least 8 tokens"),
        ({"row_length": -512}, ConfigError, "row_length is -512"),
        ({"packing": "tight"}, ConfigError, "packing is 'tight'; expected concatenate or best_fit"),
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
    assert not config.output_dir.with_name(".rows.work").exists()


def test_a_tokenizer_without_an_end_of_text_is_refused(config: Config) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(str(config.tokenizer))
    with pytest.raises(InputError, match="has no end-of-text token"):
        run(config)


def test_the_output_never_replaces_what_it_is_made_from(config: Config) -> None:
    assert config.corpus is not None
    for folder in (config.corpus, config.corpus / "dna.train"):
        config.output_dir = folder
        with pytest.raises(InputError):
            pack.run(config)
    assert (config.corpus / "dna.train" / "00000.jsonl").is_file()
