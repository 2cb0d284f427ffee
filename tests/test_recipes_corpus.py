"""The stage `corpus`: a folder with documents and a manifest, or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_gene.data.corpus import CutPolicy, Source
from llama_gene.errors import ConfigError, InputError
from llama_gene.recipes.corpus import Config, run
from llama_gene.runtime import read_manifest


@pytest.fixture
def genome(tmp_path: Path) -> str:
    (tmp_path / "a.fa").write_text(">chr1\nACGTTGCACCNNGATTACAGATTACA\n")
    return str(tmp_path / "a.fa")


def test_the_folder_holds_documents_and_a_manifest_that_counts_them(
    genome: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = CutPolicy(5, 20, valid_fraction=0.0)
    folder = run(Config([Source("dna", inputs=[genome])], policy, seed=4, output_dir=tmp_path / "out"))
    assert sorted(path.name for path in folder.iterdir()) == ["dna.train.jsonl", "dna.valid.jsonl", "manifest.json"]
    assert [json.loads(line) for line in (folder / "dna.train.jsonl").read_text().splitlines()] == [
        {"id": "chr1:0-10", "text": "ACGTTGCACC"},
        {"id": "chr1:12-26", "text": "GATTACAGATTACA"},
    ]
    manifest = read_manifest(folder, "corpus")
    assert manifest["config"]["seed"] == 4 and manifest["config"]["sources"][0]["inputs"] == [genome]
    assert manifest["languages"]["dna"]["letters_kept"] == {"train": 24}
    line = "corpus dna: 26 letters read; kept train 2 documents / 24 letters; rejected: 2 unknown"
    assert line in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(), "no output_dir is given; expected --output_dir FOLDER"),
        (Config(output_dir=Path("out")), "no sources are given; expected at least one source with inputs"),
    ],
)
def test_what_is_missing_is_named(config: Config, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(config)


def test_a_fault_in_the_second_language_leaves_no_folder(genome: str, tmp_path: Path) -> None:
    (tmp_path / "p.fa").write_text(">p\nMKTAY1AKQRQISFVK\n")
    sources = [Source("dna", inputs=[genome]), Source("protein", inputs=[str(tmp_path / "p.fa")])]
    with pytest.raises(InputError, match=r"p\.fa, line 2: '1' is not a protein letter"):
        run(Config(sources, CutPolicy(5, 20), output_dir=tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.fa", "p.fa"]
