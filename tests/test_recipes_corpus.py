"""The stage `corpus`: a folder with documents and a manifest, or nothing."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llama_gene.data.settings import ContaminationPolicy, CutPolicy, Source, SplitPolicy
from llama_gene.errors import ConfigError, InputError
from llama_gene.recipes.corpus import Config, run
from llama_gene.runtime import read_manifest
from llama_gene.tokenization.tokenizer import write_tokenizer
from tests.fixtures.tiny_tokenizers import sentencepiece_like


@pytest.fixture
def genome(tmp_path: Path) -> str:
    (tmp_path / "a.fa").write_text(">chr1\nACGTTGCACCNNGATTACAGATTACA\n")
    return str(tmp_path / "a.fa")


def test_the_folder_holds_documents_and_a_manifest_that_counts_them(
    genome: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config([Source("dna", inputs=[genome])], CutPolicy(5, 20), SplitPolicy(0.0), seed=4, output_dir=tmp_path / "out")
    folder = run(config)
    assert folder is not None
    assert sorted(path.name for path in folder.iterdir()) == ["card.md", "dna.train", "lengths.png", "manifest.json"]
    assert [json.loads(line) for line in (folder / "dna.train" / "00000.jsonl").read_text().splitlines()] == [
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
        (Config([Source(inputs=["a.fa"])]), "no output_dir is given; expected --output_dir FOLDER"),
        (Config([Source(inputs=["a.fa"])], shard_letters=0, output_dir=Path("out")), "shard_letters is 0; expected at least 1 letter"),
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
    assert not (tmp_path / "out").exists()
    parts = tmp_path / ".out.work" / "parts"  # what was finished waits for the mended file
    assert [sorted(path.name for path in part.iterdir())[:2] for part in parts.iterdir()] == [["documents.bin", "documents.jsonl"]]
    (tmp_path / "p.fa").write_text(">p\nMKTAYIAKQRQISFVK\n")
    run(Config(sources, CutPolicy(5, 20), SplitPolicy(protein="record"), output_dir=tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.fa", "out", "p.fa"]


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file of a corpus; in its manifest the places and times of files and the number of workers do not count."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    manifest = json.loads(files.pop("manifest.json"))
    manifest["config"] |= {"output_dir": "", "workers": 0}
    return files | {"manifest": json.dumps(manifest, sort_keys=True).encode()}


def genomes(folder: Path, number: int, length: int) -> list[str]:
    paths = [folder / f"g{name}.fa" for name in range(number)]
    for seed, path in enumerate(paths):
        path.write_text(f">chr{seed}\n{''.join(random.Random(seed).choices('ACGT', k=length))}\n")
    return [str(path) for path in paths]


def test_law_15_one_two_and_four_workers_give_the_same_bytes(tmp_path: Path) -> None:
    sources = [Source("dna", inputs=genomes(tmp_path, 5, 20_000))]
    made = []
    for workers in (1, 2, 4):
        out = tmp_path / f"with_{workers}"
        run(Config(sources, workers=workers, shard_letters=30_000, output_dir=out))
        made.append(content(out))
    assert made[0] == made[1] == made[2] and sum(name.startswith("dna.train") for name in made[0]) == 4


def test_a_finished_corpus_is_reused_and_a_changed_file_makes_a_new_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = genomes(tmp_path, 2, 2000)
    config = Config([Source("dna", inputs=paths)], output_dir=tmp_path / "out")
    folder = run(config)
    assert folder is not None
    before, stamp = content(folder), (folder / "manifest.json").stat().st_mtime_ns
    run(config)
    assert (folder / "manifest.json").stat().st_mtime_ns == stamp and "corpus: unchanged" in capsys.readouterr().err
    Path(paths[0]).touch()  # the same bytes at another time: read again, and found to be the same
    run(config)
    assert (folder / "manifest.json").stat().st_mtime_ns == stamp
    Path(paths[1]).write_text(Path(paths[0]).read_text())
    run(config)
    assert content(folder) != before and read_manifest(folder)["languages"]["dna"]["letters_rejected"] != {}
    (folder / "dna.train" / "00000.jsonl").unlink()
    run(config)
    assert (folder / "dna.train" / "00000.jsonl").is_file()  # a damaged output is made again


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.3])
def test_a_corpus_that_was_killed_goes_on_to_the_same_bytes(tmp_path: Path, seconds: float) -> None:
    paths = genomes(tmp_path, 6, 400_000)
    run(Config([Source("dna", inputs=paths)], shard_letters=300_000, output_dir=tmp_path / "whole"))
    killed = tmp_path / "killed"
    code = (
        "from pathlib import Path; from llama_gene.data.settings import Source; from llama_gene.recipes.corpus import Config, run;"
        "print(1, flush=True);"
        f"run(Config([Source('dna', inputs={paths!r})], shard_letters=300_000, output_dir=Path({str(killed)!r})))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"1\n"
    time.sleep(seconds)
    process.kill()
    process.wait()
    process.stdout.close()
    assert not killed.exists()
    run(Config([Source("dna", inputs=paths)], shard_letters=300_000, output_dir=killed))
    assert content(killed) == content(tmp_path / "whole")
    assert not (tmp_path / ".killed.work").exists()


def test_the_preview_shows_documents_their_tokens_and_their_places(genome: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tokenizer(sentencepiece_like(), tmp_path / "tokenizer")
    config = Config([Source("dna", inputs=[genome])], CutPolicy(5, 20), SplitPolicy(0.0), preview=2, tokenizer=str(tmp_path / "tokenizer"))
    assert run(config) is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "== dna: a.fa"
    assert lines[1:3] == ["-- chr1:0-10 (train; record chr1, 26 letters): 10 letters", "ACGTTGCACC"]
    assert lines[3].strip("|").replace("|", "") == "ACGTTGCACC"
    assert re.fullmatch(r"   (\d+) tokens with BOS and EOS, at 0 to \d+ of the packed tokens", lines[4])


def test_the_card_says_what_was_read_kept_and_left_out(genome: str, tmp_path: Path) -> None:
    sources = [Source("dna", inputs=[genome], licence="CC0")]
    folder = run(Config(sources, CutPolicy(5, 20), SplitPolicy(0.0), output_dir=tmp_path / "out"))
    assert folder is not None
    card = (folder / "card.md").read_text()
    assert "| dna | dna | sequence | auto | " in card and "| CC0 |" in card
    assert "| dna | 1 | 26 | 0 | train 24 | 2 | train 2 |" in card and "| dna | unknown | 2 |" in card
    assert "No evaluation sequences were given" in card


def test_a_file_that_changes_sides_or_names_makes_a_new_corpus(tmp_path: Path) -> None:
    for folder, name in (("train", "a"), ("valid", "b"), ("train", "c")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.fa").write_text(f">{name}\n{''.join(random.Random(name).choices('ACGT', k=3000))}\n")
    sides = ("train", "valid")
    sources = [
        Source("dna", inputs=[str(tmp_path / "train")], split="train"),
        Source("dna", inputs=[str(tmp_path / "valid")], split="valid"),
    ]
    config = Config(sources, output_dir=tmp_path / "out")
    kept = []
    for move in (None, ("train/c.fa", "valid/c.fa"), ("train/a.fa", "train/z.fa")):
        if move:
            (tmp_path / move[0]).rename(tmp_path / move[1])
        run(config)
        manifest = read_manifest(tmp_path / "out", "corpus")
        kept.append((manifest["key"], [manifest["languages"]["dna"]["letters_kept"][side] for side in sides]))
    assert [letters for _, letters in kept] == [[6000, 3000], [3000, 6000], [3000, 6000]]
    assert len({key for key, _ in kept}) == 3


def test_standard_input_is_read_each_time_and_by_this_process(tmp_path: Path) -> None:
    other = genomes(tmp_path, 2, 2000)
    code = (
        "from pathlib import Path; from llama_gene.data.settings import Source; from llama_gene.recipes.corpus import Config, run;"
        f"sources = [Source('dna', inputs=['-'], split='train'), Source('dna', inputs={other!r}, split='train')];"
        f"run(Config(sources, workers=2, output_dir=Path({str(tmp_path / 'out')!r}))) if __name__ == '__main__' else None"
    )
    letters = []
    for length in (500, 900):
        text = f">piped\n{''.join(random.Random(9).choices('ACGT', k=length))}\n"
        subprocess.run([sys.executable, "-c", code], input=text.encode(), check=True)
        letters.append(read_manifest(tmp_path / "out")["languages"]["dna"]["letters_read"])
    assert letters == [4500, 4900]


def test_a_killed_run_leaves_nothing_behind_once_it_has_gone_on(tmp_path: Path) -> None:
    (tmp_path / ".out.work" / "0123456789abcdef" / "dna.train").mkdir(parents=True)  # shards of other settings
    paths = genomes(tmp_path, 2, 3000)
    run(Config([Source("dna", inputs=paths)], output_dir=tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g0.fa", "g1.fa", "out"]


def test_inputs_in_the_output_folder_are_refused_however_they_are_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(Config([Source("dna", inputs=genomes(tmp_path, 1, 2000))], output_dir=out))
    (out / "e.fa").write_text(">e\n" + "ACGTTGCA" * 10 + "\n")
    inputs = genomes(tmp_path, 1, 3000)
    for config in (
        Config([Source("dna", inputs=[f"{out}/dna.train/*.jsonl"])], output_dir=out),
        Config([Source("dna", inputs=["dna.train/00000.jsonl"])], data_dir=out, output_dir=out),
        Config([Source("dna", inputs=inputs)], decontaminate=ContaminationPolicy([str(out / "e.fa")]), output_dir=out),
        Config([Source("dna", inputs=[str(tmp_path)])], output_dir=tmp_path / "inside"),
    ):
        with pytest.raises(InputError, match="lies in the output folder"):
            run(config)
    assert (out / "e.fa").is_file() and (out / "dna.train" / "00000.jsonl").is_file()
