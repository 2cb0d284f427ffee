"""Does English survive the gene stage? A base that has read English learns DNA and protein, with a share of replayed English and without.

    python benchmarks/forgetting.py --data DATA --work FOLDER [--base-steps 800] [--steps 600] [--replay 0.1] [--learning_rates 1e-3 5e-4]
                                    [--starts pieces quiet] [--seeds 0 1 2]

A LLaMA of width 192 and 4 layers is pretrained on the biology books and articles, 512 DNA and 512 protein pieces are spliced behind its
2,048 ids, and the DNA + protein stage is run from the same base with the same number of steps: with `--replay` of its tokens English, once
for each start of the new rows, learning rate and seed (order of rows, dropout, the adapter's start), and once with none. The project's own
guard watches: it warns at 2 %, and stops the run at 10 %. At the end base and model read the same held-out English, which nothing was
trained on: whole documents, and the guard's own packed rows. Prints Markdown; what is finished in FOLDER is reused.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from llama_gene import runtime
from llama_gene.data.corpus import read_corpus
from llama_gene.data.settings import Source
from llama_gene.errors import LlamaGeneError
from llama_gene.inference.perplexity import bits_per_letter
from llama_gene.models.adapters import load_model
from llama_gene.models.settings import Architecture, EmbeddingInit, LoraSettings
from llama_gene.recipes import corpus, pack, pretrain, vocab
from llama_gene.training.settings import TrainSettings, WatchSettings

ENGLISH = (
    "openstax_biology.jsonl.xz",
    "openstax_anatomy_physiology.jsonl.xz",
    "plos_articles.jsonl.xz",
    "craft_fulltext_articles.jsonl.xz",
)
DNA = ("bacteria/salmonella_enterica_LT2.fna.gz", "phage/gut_phage_contigs_63.fasta.gz")
PROTEIN = ("uniprot_anabaena.fasta.xz", "uniprot_trypanosoma.fasta.xz")


def make_base(data: Path, work: Path, steps: int) -> tuple[Path, Path]:
    """Return (corpus, base) folders."""
    sources = [
        Source("english", inputs=[str(data / "english" / name) for name in ENGLISH]),
        Source("dna", inputs=[str(data / "genomes" / name) for name in DNA]),
        Source("protein", inputs=[str(data / "proteins" / name) for name in PROTEIN], max_letters=3_000_000),
    ]
    documents = corpus.run(corpus.Config(sources=sources, output_dir=work / "corpus"))
    if not (work / "tokenizer" / runtime.MANIFEST_NAME).is_file():
        vocab.run(vocab.Config(base_size=2048, base_inputs=[str(documents / "english.train")], out=work / "tokenizer"))
    rows = work / "english_rows"
    pack.run(pack.Config(corpus=documents, tokenizer=str(work / "tokenizer"), languages=["english"], row_length=256, output_dir=rows))
    base = work / "base"
    if not (base / runtime.MANIFEST_NAME).is_file():
        shape = Architecture(width=192, layers=4, heads=6, max_length=512)
        train = settings(steps, 2e-3, WatchSettings(every=0, guard=[]))
        pretrain.run(pretrain.Config(rows=rows, architecture=shape, train=train, output_dir=base))
    return documents, base


def settings(steps: int, learning_rate: float, watch: WatchSettings, seed: int = 0) -> TrainSettings:
    """Return how each model is trained."""
    return TrainSettings(
        steps=steps,
        batch_size=8,
        learning_rate=learning_rate,
        seed=seed,
        precision="fp32",
        logging_steps=50,
        save_steps=200,
        report_to=[],
        watch=watch,
    )


def gene_stage(
    work: Path, base: Path, name: str, shares: dict[str, float], steps: int, learning_rate: float, seed: int, start: EmbeddingInit
) -> dict[str, Any]:
    """Run the DNA + protein stage; return the looks and, where the guard stopped it, what it said."""
    watch = WatchSettings(tokens=65_536, every=max(1, steps // 8), warn=0.02, stop=0.10)
    config = pretrain.Config(
        rows=work / "rows",
        base=str(base),
        shares=shares,
        embedding_init=start,
        lora=LoraSettings(),
        train=settings(steps, learning_rate, watch, seed),
        output_dir=work / name,
    )
    try:
        if not (work / name / runtime.MANIFEST_NAME).is_file():
            pretrain.run(config)
        return {"looks": runtime.read_manifest(work / name)["held_out"], "stopped": ""}
    except LlamaGeneError as error:
        return {"looks": [], "stopped": " ".join(str(error).split())}


def english_bits(folder: Path, documents: list[str]) -> float:
    """Return bits per byte of English documents."""
    model, tokenizer = load_model(folder)
    return bits_per_letter(model, tokenizer, documents, max_length=256, unit="byte")["bits_per_letter"]


def main() -> None:
    parser = argparse.ArgumentParser(description="English before and after the gene stage, with and without replay")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base-steps", type=int, default=800)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--replay", type=float, default=0.1, help="share of English in the tokens")
    parser.add_argument("--learning_rates", type=float, nargs="+", default=[1e-3, 5e-4])
    parser.add_argument("--starts", nargs="+", default=["pieces", "quiet"], choices=get_args(EmbeddingInit), help="of the new rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    runtime.set_library_switches()
    work = arguments.work
    documents, base = make_base(arguments.data, work, arguments.base_steps)
    if not (work / "spliced" / runtime.MANIFEST_NAME).is_file():
        steps = [vocab.Step(kind, [str(documents / f"{kind}.train")], size=512) for kind in ("dna", "protein")]
        vocab.run(vocab.Config(base=str(base), steps=steps, out=work / "spliced"))
    pack.run(pack.Config(corpus=documents, tokenizer=str(work / "spliced"), row_length=256, output_dir=work / "rows"))
    english = [text[:4000] for _, text in read_corpus(documents, "english", "valid")]
    before = english_bits(base, english)
    genes = (1 - arguments.replay) / 2
    replayed = {"dna": genes, "protein": genes, "english": arguments.replay}
    print(f"\n{len(english)} held-out English documents, {sum(map(len, english)):,} letters; {before:.4f} bits per byte before.\n")
    print("| English | new rows | learning rate | seed | documents, after | change | packed rows, change | at the start | DNA | protein |")
    print("|---|" + "---:|" * 9)
    for start, rate in itertools.product(arguments.starts, arguments.learning_rates):
        changes = []
        for seed in arguments.seeds:
            name = f"replay_{rate:g}_{seed}" + ("" if start == "pieces" else f"_{start}")
            found = gene_stage(work, base, name, replayed, arguments.steps, rate, seed, start)
            if found["stopped"]:
                print(f"| {100 * arguments.replay:g} % | {start} | {rate:g} | {seed} | the guard: {found['stopped']} | | | | |")
                continue
            first, last = found["looks"][0], found["looks"][-1]
            genes_cells = [f"{first[key]:.3f} -> {last[key]:.3f}" for key in ("held_out/dna", "held_out/protein")]
            after = english_bits(work / name, english)
            changes.append((after / before - 1, *(look["held_out/english"] / first["base/english"] - 1 for look in (last, first))))
            cells = [f"{after:.4f}", *(f"{100 * change:+.2f} %" for change in changes[-1]), *genes_cells]
            print(f"| {100 * arguments.replay:g} % | {start} | {rate:g} | {seed} | {' | '.join(cells)} |", flush=True)
        if len(changes) > 1:
            mean, spread = ([f"{100 * value:.2f} %" for value in tool(changes, axis=0)] for tool in (np.mean, partial(np.std, ddof=1)))
            both = " | ".join(f"{one} ± {other}" for one, other in zip(mean, spread, strict=True))
            print(f"| {100 * arguments.replay:g} % | {start} | {rate:g} | mean ± sd | | {both} | | |", flush=True)
    rate, shares = arguments.learning_rates[0], {"dna": 0.5, "protein": 0.5, "english": 0.0}
    alone = gene_stage(work, base, "no_english", shares, arguments.steps, rate, 0, "pieces")
    print(f"| none | pieces | {rate:g} | 0 | {alone['stopped'] or 'the guard did not fire'} | | | | |")


if __name__ == "__main__":
    main()
