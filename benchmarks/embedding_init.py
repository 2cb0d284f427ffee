"""What the start of the new embedding rows is worth: first-step loss, and loss after a fixed number of tokens, on real DNA.

In one run: a small LLaMA is pretrained on English, 2,048 DNA pieces are spliced behind its vocabulary, and for each start
(`embedding_init`: pieces, mean, normal) and each seed it reads DNA of bacteria, phages and vertebrates with LoRA, embedding and head
trained (LLaMA-Gene 2.3.2). All starts share base, rows and settings and, within a seed, the order of the rows and the fresh LoRA
weights; so a difference within a seed comes from the start alone. Held out: yeast, never in pieces or rows. Each step is a recipe of
the package. One thread.

    python benchmarks/embedding_init.py --data DATA [--seeds 3] [--steps 100] [--base_steps 200] [--figure embedding_init.png]

Prints a Markdown table (nats per token; bits per base, which no vocabulary can bend) and writes a figure of training loss against tokens.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from llama_gene import runtime
from llama_gene.data.corpus import read_corpus
from llama_gene.data.settings import Source
from llama_gene.inference.perplexity import bits_per_letter
from llama_gene.models.adapters import load_model
from llama_gene.models.build import load_base
from llama_gene.models.embeddings import grow_embeddings
from llama_gene.models.settings import Architecture, EmbeddingInit, LoraSettings
from llama_gene.recipes import corpus, pack, pretrain, vocab
from llama_gene.tokenization.tokenizer import load_tokenizer
from llama_gene.training.settings import TrainSettings
from llama_gene.web.figures import write_figure

STARTS: tuple[EmbeddingInit, ...] = get_args(EmbeddingInit)
ENGLISH = ["english/openstax_biology.jsonl.xz", "english/openstax_anatomy_physiology.jsonl.xz"]
DNA = [
    "genomes/bacteria/sphingobacteriaceae_DW12.fna.gz",
    "genomes/bacteria/salmonella_enterica_LT2.fna.gz",
    "genomes/phage/gut_phage_contigs_63.fasta.gz",
    "genomes/vertebrates/orthologous_region_8_species.fa.gz",
]
YEAST = "genomes/yeast/saccharomyces_cerevisiae_R64-1-1.fa.gz"
ROW_LENGTH, BATCH = 256, 8  # tokens a row, rows a step
BASE_VOCAB, BASE_RATE = 4096, 3e-3
SHAPE = Architecture(width=128, layers=4, heads=4, max_length=512)
LORA = LoraSettings(rank=16, alpha=32, dropout=0.0)
COLORS = {"pieces": "#3b6fb6", "mean": "#d1742c", "normal": "#888888"}


@dataclass(frozen=True)
class Measured:
    """One training: held-out yeast before and after it, and the loss on the way."""

    before: dict[str, float]
    after: dict[str, float]
    history: list[dict[str, float]]
    tokens: int


def settings(steps: int, rate: float, seed: int) -> TrainSettings:
    """Return how everything here trains: float32, a few log lines, the first step's loss among them."""
    return TrainSettings(
        steps=steps, batch_size=BATCH, learning_rate=rate, precision="fp32", logging_steps=max(1, steps // 20), seed=seed
    )  # fmt: skip


def make_base(asked: argparse.Namespace, folder: Path) -> Path:
    """Return a small LLaMA with a SentencePiece tokenizer of its own, pretrained on English, and leave the corpus beside it."""
    # One source a genome: a cap holds for a source, and the first genome would use it up.
    sources = [Source("dna", inputs=[name], split="train", max_letters=asked.letters // len(DNA)) for name in DNA]
    sources += [Source("dna", inputs=[YEAST], split="valid", max_letters=asked.letters)]
    sources += [Source("english", inputs=ENGLISH, max_letters=asked.letters)]
    corpus.run(corpus.Config(sources=sources, data_dir=asked.data, output_dir=folder / "corpus"))
    english = [str(folder / "corpus" / "english.train")]
    vocab.run(vocab.Config(base_size=BASE_VOCAB, base_inputs=english, out=folder / "english"))
    rows = pack_rows("english", folder, folder / "english", folder / "english_rows")
    train = settings(asked.base_steps, BASE_RATE, seed=0)
    return pretrain.run(pretrain.Config(rows=rows, architecture=SHAPE, train=train, output_dir=folder / "base"))


def pack_rows(language: str, folder: Path, tokenizer: Path, rows: Path) -> Path:
    """Return the corpus's documents of a language as rows."""
    config = pack.Config(
        corpus=folder / "corpus", tokenizer=str(tokenizer), languages=[language], row_length=ROW_LENGTH, output_dir=rows
    )  # fmt: skip
    return pack.run(config)


def held_out(folder: Path, num_documents: int) -> list[str]:
    """Return documents of yeast from all over the part that was read."""
    documents = [text for _, text in read_corpus(folder / "corpus", "dna", "valid")]
    return random.Random(0).sample(documents, min(num_documents, len(documents)))


def measure(asked: argparse.Namespace, base: Path, rows: Path, documents: Sequence[str], init: EmbeddingInit, seed: int) -> Measured:
    """Grow, look, train, look again."""
    tokenizer = load_tokenizer(rows.with_name("spliced"))
    grown = load_base(base)
    grow_embeddings(grown, tokenizer, load_tokenizer(base), init, seed)
    before = bits_per_letter(grown, tokenizer, documents, max_length=ROW_LENGTH)
    train = settings(asked.steps, asked.learning_rate, seed)
    adapter = rows.with_name(f"{init}_{seed}")
    pretrain.run(pretrain.Config(rows=rows, base=str(base), embedding_init=init, lora=LORA, train=train, output_dir=adapter))
    after = bits_per_letter(*load_model(adapter), documents, max_length=ROW_LENGTH)
    return Measured(before, after, runtime.read_json(adapter / pretrain.HISTORY_NAME), runtime.read_manifest(adapter)["tokens"])


def nats_per_token(score: dict[str, float]) -> float:
    """Return the mean loss of a held-out measurement."""
    return score["bits"] * math.log(2) / score["tokens"]


def table(runs: dict[EmbeddingInit, list[Measured]]) -> Iterator[str]:
    """Yield the lines of a Markdown table: mean and standard deviation over the seeds, and the difference to `pieces` within a seed."""
    trained = f"after {runs['pieces'][0].tokens:,} tokens"
    names = ["new rows start as", "first-step loss, nats/token", "yeast before, nats/token", "bits/base"]
    names += [f"yeast {trained}, nats/token", "bits/base", "bits/base minus that of `pieces`, same seed"]
    yield f"| {' | '.join(names)} |"
    yield "| --- |" + " ---: |" * (len(names) - 1)
    for init, measured in runs.items():
        bits = [run.after["bits_per_letter"] for run in measured]
        columns = [
            [run.history[0]["loss"] for run in measured],
            [nats_per_token(run.before) for run in measured],
            [run.before["bits_per_letter"] for run in measured],
            [nats_per_token(run.after) for run in measured],
            bits,
            [value - run.after["bits_per_letter"] for value, run in zip(bits, runs["pieces"], strict=True)],
        ]
        yield f"| {init} | {' | '.join(map(spread, columns))} |"


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation over the seeds.

    >>> spread([2.0, 2.1, 2.2])
    '2.100 ± 0.100'
    """
    return f"{statistics.mean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def draw(runs: dict[EmbeddingInit, list[Measured]], path: Path) -> None:
    """Draw training loss against tokens: a line for the mean of the seeds, a band from the lowest to the highest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.6))
    axes = figure.add_subplot()
    for init, measured in runs.items():
        tokens_a_step = measured[0].tokens / measured[0].history[-1]["step"]
        tokens = [entry["step"] * tokens_a_step for entry in measured[0].history]
        losses = list(zip(*([entry["loss"] for entry in run.history] for run in measured), strict=True))
        axes.plot(tokens, [statistics.mean(point) for point in losses], color=COLORS[init], linewidth=1.4, label=init)
        axes.fill_between(tokens, [min(point) for point in losses], [max(point) for point in losses], color=COLORS[init], alpha=0.2)
    axes.set_xlabel("tokens of DNA")
    axes.set_ylabel("training loss (nats per token)")
    axes.set_title(f"start of new embedding rows, {len(measured)} seeds", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    write_figure(figure, path)


def ask() -> Any:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("LLAMA_GENE_DATA")
    parser.add_argument("--data", type=Path, default=data, required=data is None, help="data folder (LLAMA_GENE_DATA if unset)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help=f"steps of DNA, {BATCH * ROW_LENGTH:,} tokens each")
    parser.add_argument("--base_steps", type=int, default=200, help="steps of English")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--pieces", type=int, default=2048, help="DNA pieces")
    parser.add_argument("--letters", type=int, default=4_000_000, help="bases of all training genomes, letters of English, bases of yeast")
    parser.add_argument("--documents", type=int, default=100, help="held-out fragments of yeast, about 650 bases each")
    parser.add_argument("--figure", type=Path, default=Path("embedding_init.png"))
    return parser.parse_args()


def main() -> None:
    """Measure, print, draw."""
    asked = ask()
    started = time.perf_counter()
    runtime.set_library_switches()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="embedding_init_") as name, contextlib.redirect_stdout(sys.stderr):
        folder = Path(name)
        base = make_base(asked, folder)
        step = vocab.Step(kind="dna", input=[str(folder / "corpus" / "dna.train")], size=asked.pieces)
        vocab.run(vocab.Config(base=str(base), steps=[step], out=folder / "spliced"))
        rows = pack_rows("dna", folder, folder / "spliced", folder / "rows")
        documents = held_out(folder, asked.documents)
        untrained = bits_per_letter(load_base(base), load_tokenizer(base), documents, max_length=ROW_LENGTH)
        runs: dict[EmbeddingInit, list[Measured]] = {init: [] for init in STARTS}
        for seed in range(asked.seeds):
            for init in STARTS:
                runs[init].append(measure(asked, base, rows, documents, init, seed))
    draw(runs, asked.figure)
    print("\n".join(table(runs)))
    grown = runs["pieces"][0].before
    print(f"\nMean ± standard deviation of {asked.seeds} seeds. The base alone, with its own {BASE_VOCAB:,} ids, needs", end=" ")
    print(f"{untrained['bits_per_letter']:.3f} bits/base. Held out: {grown['letters']:,} bases of yeast,", end=" ")
    print(f"{grown['letters'] / grown['tokens']:.2f} a token after the splice.", end=" ")
    print(f"{time.perf_counter() - started:.0f} s of wall time, {time.process_time():.0f} s of CPU; figure: {asked.figure}")


if __name__ == "__main__":
    main()
