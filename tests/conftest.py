"""Small things that many tests share, made once a session: a corpus, a base, a spliced tokenizer, rows, an adapter, instructions.

All is written here or made by the recipes themselves; a whole route of two layers and width 32 takes a few seconds.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from llama_gene import runtime
from tests.fixtures.tiny_vocabularies import ENGLISH, SENTENCES, genes, proteins

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: models of width 32 only lose by threads that wait for each other
runtime.set_library_switches()


@dataclass(frozen=True)
class Route:
    """The folders of one toy route, in the order of the data."""

    corpus: Path
    base: Path  # a LLaMA of two layers, with its own SentencePiece tokenizer
    tokenizer: Path  # the base's, with 96 DNA and 96 protein pieces behind it
    rows: Path
    adapter: Path
    instructions: Path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of three languages."""
    from llama_gene.data.settings import CutPolicy, Source, SplitPolicy
    from llama_gene.recipes.corpus import Config, run

    folder = tmp_path_factory.mktemp("route")
    (folder / "genome.fa").write_text("".join(f">contig{i}\n{text}\n" for i, text in enumerate(genes(12, 600))))
    (folder / "proteome.fa").write_text("".join(f">protein{i}\n{text}\n" for i, text in enumerate(proteins(60, 120))))
    english = [" ".join(random.Random(i).sample(SENTENCES, 6)) for i in range(40)] + ENGLISH
    (folder / "english.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in english))
    sources = [
        Source("dna", inputs=[str(folder / "genome.fa")]),
        Source("protein", inputs=[str(folder / "proteome.fa")]),
        Source("english", inputs=[str(folder / "english.jsonl")]),
    ]
    cut, split = CutPolicy(min_fragment=60, max_fragment=200), SplitPolicy(valid_fraction=0.15)
    run(Config(sources=sources, cut=cut, split=split, output_dir=folder / "1_corpus"))
    return folder / "1_corpus"


@pytest.fixture(scope="session")
def base(corpus: Path) -> Path:
    """A base made from scratch: an English tokenizer, English rows, and a LLaMA that has read them for 30 steps."""
    return make_base(corpus, corpus.parent, tied=False)


@pytest.fixture(scope="session")
def tokenizer_dir(corpus: Path, base: Path) -> Path:
    """The base's tokenizer with DNA and protein pieces."""
    from llama_gene.recipes.vocab import Config, Step, run

    steps = [Step(kind, [str(corpus / f"{kind}.train")], size=96) for kind in ("dna", "protein")]
    return run(Config(base=str(base), steps=steps, out=corpus.parent / "2_vocab"))


@pytest.fixture(scope="session")
def rows(corpus: Path, tokenizer_dir: Path) -> Path:
    """The corpus as rows of 64 tokens."""
    from llama_gene.recipes.pack import Config, run

    return run(Config(corpus=corpus, tokenizer=str(tokenizer_dir), row_length=64, output_dir=corpus.parent / "3_rows"))


@pytest.fixture(scope="session")
def adapter(base: Path, rows: Path) -> Path:
    """An adapter that has read the rows for 20 steps."""
    from llama_gene.models.settings import LoraSettings
    from llama_gene.recipes.pretrain import Config, run

    return run(
        Config(rows=rows, base=str(base), lora=LoraSettings(rank=4), train=tiny_training(20), output_dir=rows.parent / "4_pretrained")
    )


@pytest.fixture(scope="session")
def instructions(corpus: Path) -> Path:
    """One task: does the sequence hold a TATA box."""
    from llama_gene.recipes.instruct import Config, run

    rng = random.Random(3)
    folder = corpus.parent / "tasks"
    folder.mkdir()
    for split, count in (("train", 60), ("dev", 12), ("test", 20)):
        lines = ["sequence,label"]
        for number in range(count):
            text = "".join(rng.choices("ACG", k=40))
            lines.append(f"{text[:15] + 'TATAAA' + text[21:] if number % 2 else text},{number % 2}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    (folder / "tata.yaml").write_text(
        "name: tata\ntitle: TATA box detection\nfamily: classification\nstrand: sense\nlabels: {0: Non-promoter, 1: promoter}\n"
        "train: train.csv\ndev: dev.csv\ntest: test.csv\n"
    )
    return run(Config(tasks=[folder / "tata.yaml"], output_dir=corpus.parent / "5_instructions"))


@pytest.fixture(scope="session")
def route(corpus: Path, base: Path, tokenizer_dir: Path, rows: Path, adapter: Path, instructions: Path) -> Route:
    """The whole route up to the instructions."""
    return Route(corpus, base, tokenizer_dir, rows, adapter, instructions)


def tiny_training(steps: int, **changes: object):  # type: ignore[no-untyped-def]  # the settings' module is imported late
    """Return settings for a few steps in float32, every loss logged."""
    from llama_gene.training.settings import TrainSettings

    values = {"steps": steps, "batch_size": 4, "learning_rate": 1e-2, "precision": "fp32", "logging_steps": 1, "report_to": []}
    return TrainSettings(**{**values, **changes})


def make_base(corpus: Path, folder: Path, tied: bool, family: str = "llama") -> Path:
    """Make a base from scratch through the recipes."""
    from llama_gene.models.settings import Architecture
    from llama_gene.recipes import pack, pretrain, vocab

    name = f"{family}_tied" if tied else family
    tokenizer = folder / "0_tokenizer"
    if not tokenizer.is_dir():
        vocab.run(vocab.Config(base_size=400, base_inputs=[str(corpus / "english.train")], out=tokenizer))
        pack.run(pack.Config(corpus=corpus, tokenizer=str(tokenizer), languages=["english"], row_length=64, output_dir=folder / "0_rows"))
    shape = Architecture(family=family, width=32, layers=2, heads=4, max_length=1024, tie_embeddings=tied)  # type: ignore[arg-type]
    config = pretrain.Config(rows=folder / "0_rows", architecture=shape, train=tiny_training(30), output_dir=folder / f"0_{name}")
    return pretrain.run(config)


@dataclass(frozen=True)
class TwoProcesses:
    """What one launch of two processes left: the adapter of launch/pretrain.py, and a folder for each job of tests/two_processes.py."""

    config: dict[str, object]  # of launch/pretrain.py
    pretrained: Path
    jobs: Path


@pytest.fixture(scope="session")
def two_processes(base: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> TwoProcesses:
    """Launch two processes once, for every test that needs them."""
    if sys.platform != "linux" or not (shutil.which("c++") or shutil.which("g++")):
        pytest.skip("DeepSpeed runs on Linux, and needs a C++ compiler for its CPU ops")
    root = Path(__file__).resolve().parents[1]
    folder = tmp_path_factory.mktemp("two_processes")
    zero = {stage: str(root / "ds_configs" / f"zero{stage}.json") for stage in (1, 2, 3)}
    train = tiny_training(12, batch_size=2, accumulation=2, learning_rate=5e-3, deepspeed=zero[2])
    pretrained = folder / "pretrained"
    config = {"rows": rows, "base": str(base), "lora": {"rank": 4, "dropout": 0.0}, "train": train, "output_dir": pretrained}
    runtime.write_text(folder / "pretrain.yaml", yaml.safe_dump(runtime.plain(config)))
    plan: list[dict[str, object]] = [{"argv": [str(root / "launch" / "pretrain.py"), "--config", str(folder / "pretrain.yaml")]}]
    plan += [{"folder": f"zero{stage}", "deepspeed": path} for stage, path in zero.items()]
    plan += [{"folder": f"whole{stage}", "deepspeed": zero[stage], "dropout": 0.1} for stage in (2, 3)]
    plan += [{"folder": f"resumed{stage}", "deepspeed": zero[stage], "dropout": 0.1, "interrupted": True} for stage in (2, 3)]
    plan += [{"folder": "tied", "deepspeed": zero[3], "tied": True}]
    plan += [{"folder": "watched", "deepspeed": zero[3], "watched": True}]
    # Plain DDP comes first: once DeepSpeed has been used, its switches stay in the environment.
    plan.insert(0, {"folder": "ddp", "deepspeed": None})
    for job in plan:
        if "folder" in job:
            job["folder"] = str(folder / str(job["folder"]))
    runtime.write_json(folder / "plan.json", plan)
    environment = {**runtime.launch_environment(2), "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--master_port", str(runtime.free_port())]
    command += [str(root / "tests" / "two_processes.py"), str(folder / "plan.json")]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return TwoProcesses(config, pretrained, folder)
