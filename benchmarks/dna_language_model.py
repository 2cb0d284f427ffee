"""What a small LLaMA learns of DNA, beside Markov models of the same bases: bits per base of genomes that neither has seen.

Trained on: bacteria, phages, SARS-CoV-2, Drosophila genes, vertebrates, human; both strands. Held out whole: Arabidopsis (all of it) and
yeast (fragments spread evenly over its chromosomes): no model and no vocabulary is trained on them. The LLaMA is made by the
package's recipes, as `llama-gene run` makes its base: a SentencePiece base of single letters, DNA pieces spliced behind it, packed rows,
pretraining from new weights with one cosine schedule, on one thread.

The Markov models count every base of the training documents, both strands, also those that the LLaMA had no time to read. A probability
is interpolated from the highest order down to order 0 and 1/4 (Jelinek's recursion), each order with the weight n / (n + w), n being how
often its context was seen. Two choices of w: Witten and Bell's number of different letters seen there; and one number an order, fitted to
the tails of the training genomes, which were held out of training. Scored are the very same documents, a context never longer than what
the document holds before the base. The LLaMA also pays for the end of each document, which is no base; the Markov models do not.

    python benchmarks/dna_language_model.py --data DATA --work FOLDER [--candidates 64 256 1024] [--pieces 1024 30080] [--minutes 45 45 15]

The size of the vocabulary is chosen on training genomes alone: each candidate is trained for `--trial_steps`, and the one with the fewest
bits per base on the tails goes first; `--pieces` are shown beside it. The held-out species are read when all training has ended.

Minutes are turned into steps by timing 20 steps in bf16 and in fp32; the faster is taken. `--steps` gives the numbers instead, in bf16, so
that a table can be made again on a machine of another speed. What FOLDER holds already is not made again.
Prints Markdown tables and draws bits per base against trained tokens. The measuring of Markov models is tested by the file's doctests
(`python -m doctest`).
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from llama_gene import runtime
from llama_gene.data.corpus import read_corpus
from llama_gene.data.settings import CutPolicy, Source, SplitPolicy
from llama_gene.errors import LlamaGeneError
from llama_gene.inference.perplexity import bits_per_letter
from llama_gene.models.build import load_base
from llama_gene.models.settings import Architecture
from llama_gene.recipes import corpus, pack, pretrain, vocab
from llama_gene.sequences.letters import LetterPolicy
from llama_gene.tokenization.tokenizer import load_tokenizer
from llama_gene.training.settings import TrainSettings
from llama_gene.web.figures import write_figure

TRAINING = [
    "genomes/bacteria/escherichia_coli_K12_MG1655.fna.gz",  # its GenBank record is the same genome
    "genomes/bacteria/salmonella_enterica_LT2.fna.gz",
    "genomes/bacteria/sphingobacteriaceae_DW12.fna.gz",
    "genomes/genbank/mycoplasma_mycoides_GCF_000023685.1.gbff.gz",
    "genomes/genbank/enterobacteria_phage_NC_013600.gbk",
    "genomes/genbank/enterobacteria_phage_NC_016566.gbk",
    "genomes/genbank/enterobacteria_phage_NC_019724.gbk",
    "genomes/genbank/hundred_microviruses.gbk.gz",
    "genomes/phage/gut_phage_contigs_63.fasta.gz",
    "genomes/phage/lambda_NC_001416.fa",
    "genomes/sars-cov-2/reference_wuhan-hu-1.gb",  # one of 419 nearly identical genomes
    "genomes/genbank/drosophila_chr2L_genes_train.gb.gz",
    "genomes/genbank/drosophila_chr2L_genes_test.gb.gz",
    "genomes/vertebrates/orthologous_region_8_species.fa.gz",
    "genomes/human/chr20_1Mb_1000genomes_region.fa.gz",
    "genomes/human/chr22_20-21M.fa.gz",
    "genomes/human/chr3.42M.fa.gz",
    "genomes/human/chr4.103M.fa.gz",
]
HELD_OUT = ["genomes/yeast/saccharomyces_cerevisiae_R64-1-1.fa.gz", "genomes/arabidopsis/braker_example_1Mb.fa.gz"]
SPECIES = ("yeast", "Arabidopsis")
SAMPLES = {"whole": 1_000_000, "sample": 150_000}  # bases of each species: at the end; and at each checkpoint, for the curves
CUT = CutPolicy(min_fragment=1000, max_fragment=16_000, strands="both")
TAILS = SplitPolicy(valid_fraction=0.01)  # ends of the training genomes, for settings of the Markov models
BASE_SIZE = 265  # the smallest SentencePiece base: 3 specials, 256 bytes, five signs and one merge
ROW_LENGTH = 1024
TRIAL_ROWS = 2
SHAPE = Architecture(width=256, layers=5, heads=4, max_length=ROW_LENGTH)
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.1
LOGITS = 2**26  # places times vocabulary in a micro-batch
TIMED_STEPS, CHECKPOINTS = 20, 8
ORDERS = (2, 5, 6, 12)
STRENGTHS = tuple(2.0**power for power in range(-2, 15))  # tried for each order; a context met so often counts one half
BORDER = 4  # a sign between documents
COLORS = ("#3b6fb6", "#3c8d4f", "#7a5195")
LINES = {2: "#bbbbbb", 5: "#d1742c", 6: "#888888", 12: "#444444"}

Letters = NDArray[np.uint8]
Counts = NDArray[np.uint32]
Floats = NDArray[np.float64]


# ---- Markov models


def encode_letters(documents: Iterable[str]) -> Letters:
    """Return A, C, G, T as 0 to 3, a BORDER behind each document.

    >>> encode_letters(["ACG", "T"]).tolist()
    [0, 1, 2, 4, 3, 4]
    """
    table = np.full(256, BORDER, np.uint8)
    table[np.frombuffer(b"ACGT", np.uint8)] = range(4)
    return table[np.frombuffer("".join(f"{text}|" for text in documents).encode(), np.uint8)]


def order_starts(max_order: int) -> NDArray[np.int64]:
    """Return where the counts of each order start: order k has 4^(k+1).

    >>> order_starts(2).tolist()
    [0, 4, 20, 84]
    """
    return np.cumsum([0, *(4 ** (order + 1) for order in range(max_order + 1))])


def count_letters(letters: Letters, max_order: int) -> Counts:
    """Return how often each letter followed each context, for all orders from 0 to `max_order`, one behind the other."""
    starts = order_starts(max_order)
    counts = np.zeros(starts[-1], np.uint32)
    _count(letters, starts, counts)
    return counts


def markov_bits(counts: Counts, letters: Letters, order: int, weights: Sequence[float] | None = None) -> float:
    """Return bits per base of a Markov model; `weights` as many as orders, or None for Witten and Bell's.

    Letters without any regularity cost 2 bits, a repeat next to none:

    >>> rng = np.random.default_rng(0)
    >>> noise = ["".join(rng.choice(list("ACGT"), 100_000)) for _ in range(2)]
    >>> bits = markov_bits(count_letters(encode_letters(noise[:1]), 4), encode_letters(noise[1:]), 4)
    >>> 1.999 < bits < 2.02
    True
    >>> repeat = encode_letters(["ACCGT" * 20_000])
    >>> markov_bits(count_letters(repeat, 3), repeat, 3) < 0.001
    True
    >>> round(markov_bits(count_letters(repeat, 3), repeat, 0), 3)  # order 0 knows only that C is twice as frequent
    1.922

    Witten and Bell after AAC: A has (2 + 2/4) / (3 + 2) = 1/2, and behind A again (1 + 2/2) / (2 + 2) = 1/2.

    >>> markov_bits(count_letters(encode_letters(["AAC"]), 1), encode_letters(["AA"]), 1)
    1.0

    A model of nothing gives every letter 1/4:

    >>> markov_bits(np.zeros(4, np.uint32), repeat, 0)
    2.0

    Whatever was counted, the four letters behind a context have probabilities that add up to 1:

    >>> counts = count_letters(encode_letters(["GATTACAGATTGACCA"]), 3)
    >>> word = ["GAT" + letter for letter in "ACGT"]
    >>> costs = [4 * markov_bits(counts, encode_letters([text]), 3) - 3 * markov_bits(counts, encode_letters(["GAT"]), 3) for text in word]
    >>> round(sum(2**-cost for cost in costs), 9)
    1.0
    """
    num_letters = int((letters != BORDER).sum())
    strengths = np.full(order + 1, -1.0) if weights is None else np.asarray(weights[: order + 1], np.float64)
    return float(_bits(letters, order_starts(order), counts, strengths)) / num_letters


def fit_weights(counts: Counts, letters: Letters, max_order: int) -> list[float]:
    """Return for each order the weight with which it fits `letters` best, the orders below it given."""
    weights: list[float] = []
    for order in range(max_order + 1):
        weights.append(min(STRENGTHS, key=lambda weight: markov_bits(counts, letters, order, [*weights, weight])))
    return weights


@numba.njit(cache=True)
def _count(letters: Letters, starts: NDArray[np.int64], counts: Counts) -> None:
    max_order = len(starts) - 2
    context, seen = 0, 0
    for letter in letters:
        if letter == BORDER:
            context, seen = 0, 0
            continue
        for order in range(min(seen, max_order) + 1):
            counts[starts[order] + ((context & ((1 << 2 * order) - 1)) << 2) + letter] += 1
        context = int(((context << 2) | np.int64(letter)) & ((1 << 2 * max_order) - 1))
        seen += 1


@numba.njit(cache=True)
def _bits(letters: Letters, starts: NDArray[np.int64], counts: Counts, strengths: Floats) -> float:
    max_order = len(starts) - 2
    context, seen, bits = 0, 0, 0.0
    for letter in letters:
        if letter == BORDER:
            context, seen = 0, 0
            continue
        probability = 0.25
        for order in range(min(seen, max_order) + 1):
            first = starts[order] + ((context & ((1 << 2 * order) - 1)) << 2)
            total, kinds = 0, 0
            for other in range(4):
                total += counts[first + other]
                kinds += counts[first + other] > 0
            if total:
                weight = strengths[order] if strengths[order] >= 0 else float(kinds)
                probability = (counts[first + letter] + weight * probability) / (total + weight)
        bits -= np.log2(probability)
        context = int(((context << 2) | np.int64(letter)) & ((1 << 2 * max_order) - 1))
        seen += 1
    return bits


def measure_markov(corpus_dir: Path) -> dict[str, Any]:
    """Return the weights that were fitted, and bits per base by order, choice of weights, size of the sample and species."""
    letters = encode_letters(text for _, text in read_corpus(corpus_dir, "dna", "train"))
    counts = count_letters(letters, max(ORDERS))
    tails = encode_letters(text for _, text in read_corpus(corpus_dir, "dna", "valid"))
    weights = fit_weights(counts, tails, max(ORDERS))
    rows: list[dict[str, Any]] = [{"order": order, "weights": name} for order in ORDERS for name in ("Witten-Bell", "fitted")]
    for size, num_letters in SAMPLES.items():
        for species, texts in held_out(corpus_dir, num_letters).items():
            scored = encode_letters(texts)
            for row in rows:
                row[f"{size} {species}"] = markov_bits(counts, scored, row["order"], weights if row["weights"] == "fitted" else None)
    return {"letters": int((letters != BORDER).sum()), "fitted_weights": weights, "rows": rows}


# ---- the language model


@dataclass(frozen=True)
class Plan:
    """How one vocabulary's model is trained."""

    pieces: int
    rows_a_step: int
    folder: Path
    minutes: float = 0.0
    steps: int = 0  # decided by minutes where it is 0
    is_whole: bool = True  # score many documents at the end, not the sample alone

    @property
    def micro_batch(self) -> int:
        """Rows whose logits are in memory at a time."""
        return max(1, min(self.rows_a_step, LOGITS // (ROW_LENGTH * (self.pieces + BASE_SIZE))))

    def settings(self, steps: int, precision: Any, save_steps: int = 0) -> TrainSettings:
        """Return how it trains."""
        return TrainSettings(
            steps=steps, batch_size=self.micro_batch, accumulation=self.rows_a_step // self.micro_batch, learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY, precision=precision, save_steps=save_steps, logging_steps=max(1, min(20, steps // 4)),
        )  # fmt: skip


def make_corpus(data: Path, folder: Path) -> Path:
    """Return the documents of all genomes, the held-out species apart (split `test`)."""
    letters = LetterPolicy(ambiguous="split", soft_masked="upper")
    sources = [Source("dna", inputs=TRAINING, letters=letters), Source("dna", inputs=HELD_OUT, letters=letters, split="test")]
    made = corpus.run(corpus.Config(sources, cut=CUT, split=TAILS, data_dir=data, output_dir=folder / "corpus"))
    assert made is not None
    return made


def held_out(corpus_dir: Path, num_letters: int) -> dict[str, list[str]]:
    """Return documents of each held-out species, evenly spaced over it, of about `num_letters` bases (all where there are no more)."""
    found: dict[str, list[str]] = {species: [] for species in SPECIES}
    for name, text in read_corpus(corpus_dir, "dna", "test"):
        found["Arabidopsis" if re.match(r"X\d", name) else "yeast"].append(text)  # yeast's chromosomes are I to XVI and Mito
    return {species: spread_out(texts, num_letters) for species, texts in found.items()}


def spread_out(texts: Sequence[str], num_letters: int) -> list[str]:
    """Return evenly spaced texts with about `num_letters` letters.

    >>> spread_out(["AA", "CC", "GG", "TT"], 4)
    ['AA', 'GG']
    """
    count = min(len(texts), max(1, round(num_letters / sum(map(len, texts)) * len(texts))))
    return [texts[place * len(texts) // count] for place in range(count)]


def make_rows(corpus_dir: Path, plan: Plan) -> Path:
    """Return packed rows of a vocabulary that is learned from the training documents."""
    tokenizer = plan.folder / "tokenizer"
    if not (tokenizer / runtime.MANIFEST_NAME).is_file():
        step = vocab.Step(kind="dna", input=[str(corpus_dir / "dna.train")], size=plan.pieces)
        letters = [str(corpus_dir / "dna.valid")]  # of the base only the four letters are used
        vocab.run(vocab.Config(base_size=BASE_SIZE, base_inputs=letters, steps=[step], out=tokenizer))
    rows = pack.Config(corpus=corpus_dir, tokenizer=str(tokenizer), row_length=ROW_LENGTH, output_dir=plan.folder / "rows")
    return pack.run(rows)


def launch(rows: Path, settings: TrainSettings, model: Path, kept: Path | None = None) -> float:
    """Run the stage `pretrain` on one thread, in a process of its own; copy its checkpoints' weights to `kept`; return its CPU seconds."""
    config = pretrain.Config(rows=rows, architecture=SHAPE, train=settings, output_dir=model)
    path = model.with_name(model.name + ".yaml")
    runtime.write_text(path, yaml.safe_dump(runtime.plain(config), sort_keys=False))
    before = children_seconds()
    command = [sys.executable, "-m", "llama_gene.cli", "pretrain", "--config", str(path)]
    process = subprocess.Popen(command, env=runtime.launch_environment(1) | {"OMP_NUM_THREADS": "1"}, stdout=sys.stderr)
    while process.poll() is None:
        time.sleep(1)
        if kept is not None:
            keep_weights(model.with_name(model.name + ".work"), kept)
    if process.returncode:
        raise LlamaGeneError(f"pretrain ended with exit code {process.returncode}", "0", f"See its output above; {path} repeats it alone")
    return children_seconds() - before


def children_seconds() -> float:
    """Return the CPU seconds of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def keep_weights(work_dir: Path, kept: Path) -> None:
    """Copy the weights of finished checkpoints, which `pretrain` deletes when it has ended."""
    for checkpoint in work_dir.glob("checkpoint-*"):
        target = kept / checkpoint.name.rsplit("-", 1)[1]
        if (checkpoint / "whole").is_file() and not target.exists():
            target.with_suffix(".part").mkdir(parents=True, exist_ok=True)
            for name in ("config.json", "model.safetensors"):
                shutil.copyfile(checkpoint / name, target.with_suffix(".part") / name)
            os.replace(target.with_suffix(".part"), target)


def choose_steps(rows: Path, plan: Plan) -> dict[str, Any]:
    """Return the precision and the steps: those of the plan, or the faster one and what it does in the plan's minutes, by timing a few."""
    if plan.steps:
        return {"precision": "bf16", "steps": plan.steps}
    speed: dict[str, float] = {}
    for precision in ("bf16", "fp32"):
        launch(rows, plan.settings(TIMED_STEPS, precision), plan.folder / f"timed_{precision}")
        speed[precision] = runtime.read_manifest(plan.folder / f"timed_{precision}")["tokens_per_second"]
    faster = max(speed, key=lambda name: speed[name])
    steps = max(CHECKPOINTS, round(60 * plan.minutes * speed[faster] / (plan.rows_a_step * ROW_LENGTH)))
    runtime.get_logger().info("%d DNA pieces, tokens/s: %s; %s steps", plan.pieces, speed, steps)
    return {"precision": faster, "steps": steps, "tokens_per_second": speed}


def train(rows: Path, plan: Plan) -> dict[str, Any]:
    """Train the plan's model and return the facts of it."""
    chosen = once(plan.folder / "plan.json", lambda: choose_steps(rows, plan))
    settings = plan.settings(chosen["steps"], chosen["precision"], save_steps=math.ceil(chosen["steps"] / CHECKPOINTS))
    model = plan.folder / "model"
    cpu = once(plan.folder / "cpu.json", lambda: launch(rows, settings, model, plan.folder / "checkpoints"))
    done, packed = runtime.read_manifest(model), runtime.read_manifest(rows)["languages"]["dna"]["train"]
    embeddings = 2 * len(load_tokenizer(model)) * SHAPE.width
    return {
        **chosen,
        "rows_a_step": plan.rows_a_step,
        "tokens": done["tokens"],
        "bases_per_token": packed["letters"] / packed["tokens"],
        "epochs": done["tokens"] / packed["tokens"],
        "cpu_minutes": cpu / 60,
        "weights": done["parameters"] - embeddings,
        "embeddings": embeddings,
        "vocabulary": len(load_tokenizer(model)),
    }


def measure_model(corpus_dir: Path, plan: Plan, facts: dict[str, Any]) -> dict[str, Any]:
    """Return bits per base {"whole", "curve"}: of many held-out documents at the end (if wanted), of a sample at each checkpoint."""
    model, kept = plan.folder / "model", plan.folder / "checkpoints"
    places = [(int(folder.name), folder) for folder in kept.iterdir() if folder.name.isdigit()]
    places = [(step, folder) for step, folder in sorted(places) if step < facts["steps"]] + [(facts["steps"], model)]
    sample, curve = held_out(corpus_dir, SAMPLES["sample"]), []
    for step, folder in places:
        bits = once(plan.folder / f"bits_{step}.json", partial(species_bits, folder, model, sample))
        curve.append({"tokens": step * facts["tokens"] / facts["steps"], **bits})
    if not plan.is_whole:
        return {"whole": None, "curve": curve}
    whole = held_out(corpus_dir, SAMPLES["whole"])
    return {"whole": once(plan.folder / "bits_end.json", lambda: species_bits(model, model, whole)), "curve": curve}


def species_bits(weights: Path, tokenizer_dir: Path, documents: dict[str, list[str]]) -> dict[str, Any]:
    """Return bits per base of each species, its bases and its tokens, in float32."""
    model, tokenizer = load_base(weights), load_tokenizer(tokenizer_dir)
    scores = {species: bits_per_letter(model, tokenizer, texts, max_length=ROW_LENGTH) for species, texts in documents.items()}
    bits = {species: score["bits_per_letter"] for species, score in scores.items()}
    return {**bits, **{f"{species} {what}": score[what] for species, score in scores.items() for what in ("letters", "tokens")}}


def try_sizes(corpus_dir: Path, asked: Any) -> dict[int, float]:
    """Return bits per base of the training genomes' tails for each candidate size, after a short training of its own."""
    tails = spread_out([text for _, text in read_corpus(corpus_dir, "dna", "valid")], SAMPLES["sample"])
    found: dict[int, float] = {}
    for pieces in asked.candidates:
        plan = Plan(pieces, TRIAL_ROWS, asked.work / f"{pieces}_pieces", steps=asked.trial_steps)
        rows = make_rows(corpus_dir, plan)
        trial = replace(plan, folder=plan.folder / "trial")
        train(rows, trial)
        score = once(trial.folder / "tails.json", partial(species_bits, trial.folder / "model", trial.folder / "model", {"tails": tails}))
        found[pieces] = score["tails"]
    return found


# ---- tables and figure


def once(path: Path, make: Callable[[], Any]) -> Any:
    """Return what `path` holds; where there is no such file, make it."""
    if not path.is_file():
        runtime.write_json(path, make())
    return runtime.read_json(path)


def table(markov: dict[str, Any], models: dict[int, dict[str, Any]], scored: dict[str, dict[str, int]]) -> Iterator[str]:
    """Yield the lines of two Markdown tables: bits per base of everything, and how the LLaMAs were trained."""
    columns = [f"{size} {species}" for size in SAMPLES for species in SPECIES]
    lengths = {name: scored[size][species] for name in columns for size, species in [name.split()]}
    yield "| bits per base of held-out DNA | " + " | ".join(f"{name.split()[1]}, {lengths[name] / 1e3:,.0f} kb" for name in columns) + " |"
    yield "| --- |" + " ---: |" * len(columns)
    for row in markov["rows"]:
        yield f"| Markov, order {row['order']}, weights {row['weights']} | " + " | ".join(f"{row[name]:.4f}" for name in columns) + " |"
    for pieces, model in models.items():
        found = [model["whole"], model["whole"], model["curve"][-1], model["curve"][-1]]
        cells = ["not scored" if bits is None else f"{bits[species]:.4f}" for bits, species in zip(found, SPECIES * 2, strict=True)]
        yield f"| LLaMA, {pieces:,} DNA pieces | {' | '.join(cells)} |"
    yield ""
    names = ["DNA pieces", "weights besides embeddings", "embeddings and head", "steps", "tokens trained", "bases trained", "passes"]
    names += ["bases per token", "CPU minutes", "tokens per CPU second", "precision"]
    yield f"| {' | '.join(names)} |"
    yield "|" + " ---: |" * len(names)
    for pieces, model in models.items():
        facts = model["facts"]
        cells = [f"{pieces:,}", f"{facts['weights']:,}", f"{facts['embeddings']:,}", f"{facts['steps']:,}", f"{facts['tokens']:,}"]
        cells += [f"{facts['tokens'] * facts['bases_per_token']:,.0f}", f"{facts['epochs']:.2f}", f"{facts['bases_per_token']:.2f}"]
        cells += [f"{facts['cpu_minutes']:.0f}", f"{facts['tokens'] / facts['cpu_minutes'] / 60:,.0f}", facts["precision"]]
        yield f"| {' | '.join(cells)} |"


def draw(markov: dict[str, Any], models: dict[int, dict[str, Any]], path: Path) -> None:
    """Draw a panel a species: bits per base against trained tokens, a level line for each Markov order at its better weights."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    panels = figure.subplots(1, len(SPECIES), sharey=False)
    for axes, species in zip(panels, SPECIES, strict=True):
        for order in ORDERS:
            bits = min(row[f"sample {species}"] for row in markov["rows"] if row["order"] == order)
            axes.axhline(bits, color=LINES[order], linewidth=1.2, linestyle="--" if order == 5 else ":", label=f"Markov, order {order}")
        for (pieces, model), color in zip(models.items(), COLORS, strict=False):
            points = [(point["tokens"] / 1e6, point[species]) for point in model["curve"]]
            axes.plot(*zip(*points, strict=True), color=color, linewidth=1.4, marker=".", label=f"LLaMA, {pieces:,} pieces")
        axes.set_title(species, fontsize=10)
        axes.set_xlabel("trained tokens, millions")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("bits per base (held out)")
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=6, frameon=False)
    write_figure(figure, path)


def ask() -> Any:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("LLAMA_GENE_DATA")
    parser.add_argument("--data", type=Path, default=data, required=data is None, help="data folder (LLAMA_GENE_DATA if unset)")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything made on the way; a second call goes on there")
    parser.add_argument("--candidates", type=int, nargs="+", default=[64, 256, 1024], help="DNA pieces of the vocabularies that are tried")
    parser.add_argument("--trial_steps", type=int, default=150, help=f"steps of {TRIAL_ROWS} rows that each candidate is tried for")
    parser.add_argument("--pieces", type=int, nargs="+", default=[1024, 30080], help="DNA pieces of the models beside the chosen one")
    parser.add_argument("--minutes", type=float, nargs="+", default=[45, 45, 15], help="of training: of the chosen one, then of --pieces")
    parser.add_argument("--steps", type=int, nargs="+", default=[], help="of each model, instead of --minutes")
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 2, 2], help=f"rows of {ROW_LENGTH:,} tokens a step of each model")
    parser.add_argument("--sample_only", type=int, nargs="*", default=[30080], help="pieces of models scored on the small sample alone")
    parser.add_argument("--figure", type=Path, default=Path("dna_language_model.png"))
    asked = parser.parse_args()
    asked.minutes = [0.0] * len(asked.steps) if asked.steps else asked.minutes
    asked.steps = asked.steps or [0] * len(asked.minutes)
    if not len(asked.pieces) + 1 == len(asked.minutes) == len(asked.rows):
        parser.error("--rows and --minutes (or --steps) need one number for the chosen size and one for each of --pieces")
    return asked


def main() -> None:
    """Train, measure, print, draw."""
    asked = ask()
    runtime.set_library_switches()
    torch.set_num_threads(1)
    trained: list[tuple[Plan, dict[str, Any]]] = []
    with contextlib.redirect_stdout(sys.stderr):
        corpus_dir = make_corpus(asked.data, asked.work)
        tried = try_sizes(corpus_dir, asked)
        sizes = [min(tried, key=lambda pieces: tried[pieces]), *asked.pieces]
        for pieces, rows_a_step, minutes, steps in zip(sizes, asked.rows, asked.minutes, asked.steps, strict=True):
            plan = Plan(pieces, rows_a_step, asked.work / f"{pieces}_pieces", minutes, steps, pieces not in asked.sample_only)
            if pieces not in [earlier.pieces for earlier, _ in trained]:
                trained.append((plan, train(make_rows(corpus_dir, plan), plan)))
        models = {plan.pieces: {"facts": facts, **measure_model(corpus_dir, plan, facts)} for plan, facts in trained}
        markov = once(asked.work / "markov.json", lambda: measure_markov(corpus_dir))
    texts = {size: held_out(corpus_dir, num_letters) for size, num_letters in SAMPLES.items()}
    scored = {size: {species: sum(map(len, found)) for species, found in sample.items()} for size, sample in texts.items()}
    print("| DNA pieces tried | bits per base, tails of the training genomes |\n| ---: | ---: |")
    print("\n".join(f"| {pieces:,} | {bits:.4f} |" for pieces, bits in tried.items()), end="\n\n")
    print("\n".join(table(markov, models, scored)))
    print(f"\nThe Markov models counted {markov['letters']:,} bases (both strands). Figure: {asked.figure}")
    draw(markov, models, asked.figure)


if __name__ == "__main__":
    main()
