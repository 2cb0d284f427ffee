"""Vocabularies on real genomes: every row of the table of docs/results.md, for one base, with the papers' recipe and two other trainers
beside.

Writes a 50-MB DNA file (real genomes without yeast and Arabidopsis, one SARS-CoV-2 genome, filled up with mutated reverse complements),
the proteins without E. coli's and every twentieth of the others, and English; then runs the command line as a user would (`vocab
train`, `vocab splice`, `vocab report`), default and strict, and measures CPU seconds and peak memory of each training. `tokenizers` and
sentencepiece train on the same file in the same run. Stand-alone = `tokenizers`' BpeTrainer, 30,080 pieces, the same length limit, one
more token a text where the base puts a dummy prefix. Unseen English = CRAFT articles, gene spans left out; forbidden strings come from
the other English.

    python benchmarks/vocabulary.py llama2 --data DATA --work FOLDER        # about 10 minutes of one core; llama3 the same
    python benchmarks/vocabulary.py llama2 --curve ...                      # afterwards: drift against compression, 8 minutes more

"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_gene.sequences.alphabet import reverse_complement
from llama_gene.sequences.records import read_documents, read_records
from llama_gene.tokenization.tokenizer import encode_batch, load_tokenizer

SIZE = 30_080
DNA_LETTERS = 50_000_000
MAX_LENGTH = 64
CHUNK = 1000  # letters of a held-out text
HELD_OUT = {"yeast": "genomes/yeast/saccharomyces_cerevisiae_R64-1-1.fa.gz", "arabidopsis": "genomes/arabidopsis/braker_example_1Mb.fa.gz"}
UNSEEN_ENGLISH = "english/craft_fulltext_articles.jsonl.xz"
PAPER_PIECES = "tokenizers/gene_bpe_unigram/gene_bpe_seg.model"


def main() -> None:
    """Prepare, train, splice, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", choices=["llama2", "llama3"])
    parser.add_argument("--data", type=Path, default=os.environ.get("LLAMA_GENE_DATA"), help="data folder (LLAMA_GENE_DATA)")
    parser.add_argument("--curve", action="store_true", help="train further protein steps and draw drift against compression")
    parser.add_argument("--sizes", type=int, nargs=2, default=[SIZE, SIZE], help="DNA and protein pieces")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made; what is there already is reused")
    asked = parser.parse_args()
    work = asked.work
    work.mkdir(parents=True, exist_ok=True)
    base = asked.data / "tokenizers" / asked.base / "tokenizer.model"
    prepare(asked.data, work)
    others = train_others(work)
    run = Commands(
        work / (asked.base if asked.sizes == [SIZE, SIZE] else f"{asked.base}_{asked.sizes[0]}_{asked.sizes[1]}"), base, work, asked.sizes
    )
    run.warm_up()
    if asked.curve:
        print(run.curve(work / "craft.txt").with_suffix(".md").read_text().split("## Drift against compression")[1])
        return
    default, strict = run.two_steps("default"), run.two_steps("strict", strict=str(work / "english"))
    paper = run.papers("paper", str(asked.data / PAPER_PIECES))
    same = run.papers("paper_here", *(str(run.paper_pieces(kind)) for kind in ("dna", "protein")))
    english = work / "craft.txt"
    folders = {"default": default, "strict": strict, "paper": paper, "paper_here": same}
    reports = {name: run.report(folder, name, english) for name, folder in folders.items()}
    rows = table(reports, run, others, asked.base)
    print("\n".join(rows))
    (work / f"{asked.base}.md").write_text("\n".join(rows) + "\n")


# --- texts ---------------------------------------------------------------------------------------------------------------------------


def prepare(data: Path, work: Path) -> None:
    """Write dna.fa (50 MB of letters), protein.fa, the held-out texts, and the English that strict mode may look at."""
    if (work / "craft.txt").exists():
        return
    rng = random.Random(0)
    groups = ("bacteria", "human", "phage", "vertebrates")
    genomes = [
        record.sequence for group in groups for path in sorted((data / "genomes" / group).iterdir()) for record in read_records(path)
    ]
    genomes.append(next(read_records(data / "genomes/sars-cov-2/example_418_genomes.fasta.xz")).sequence)
    fragments = [fragment for genome in genomes for fragment in cut(genome, rng)]
    room = DNA_LETTERS - sum(map(len, fragments))
    real = len(fragments)
    while room > 0:
        copy = mutated(fragments[rng.randrange(real)], rng)[:room]
        fragments.append(copy)
        room -= len(copy)
    write_fasta(work / "dna.fa", fragments)
    trained, held = [], []
    for path in sorted((data / "proteins").glob("*.fasta*")):
        for number, record in enumerate(read_records(path, "protein")):
            (held if "ecoli" in path.name or number % 20 == 0 else trained).append(record.sequence.rstrip("*"))
    write_fasta(work / "protein.fa", trained)
    write_fasta(work / "protein_held_out.fa", held)
    for name, place in HELD_OUT.items():
        chunks = (fragment for record in read_records(data / place) for fragment in chunked(record.sequence))
        write_fasta(work / f"{name}.fa", list(chunks))
    (work / "english").mkdir(exist_ok=True)
    for path in sorted((data / "english").iterdir()):
        if path.name != Path(UNSEEN_ENGLISH).name and path.suffix != ".json" and not path.name.startswith("pubmedqa"):
            text = "\n".join(text for _, text in read_documents(path))
            (work / "english" / f"{path.name.split('.')[0]}.txt").write_text(text, encoding="utf-8")
    pubmed = json.loads(gzip.decompress((data / "english/pubmedqa_ori_pqal.json.gz").read_bytes()))
    abstracts = "\n".join("\n".join([*item["CONTEXTS"], item["LONG_ANSWER"]]) for item in pubmed.values())
    (work / "english" / "pubmedqa.txt").write_text(abstracts, encoding="utf-8")
    (work / "craft.txt").write_text("\n".join(text for _, text in read_documents(data / UNSEEN_ENGLISH)), encoding="utf-8")


def cut(genome: str, rng: random.Random) -> Iterator[str]:
    """Yield fragments of 300 to 1,000 bp between unknown bases."""
    for run in re.findall("[ACGT]{50,}", genome.upper()):
        start = 0
        while start < len(run):
            length = rng.randint(300, 1000)
            yield run[start : start + length]
            start += length


def chunked(sequence: str) -> Iterator[str]:
    """Yield a held-out sequence in chunks, unknown bases left out."""
    for run in re.findall("[ACGT]{300,}", sequence.upper()):
        for start in range(0, len(run) - 300, CHUNK):
            yield run[start : start + CHUNK]


def mutated(fragment: str, rng: random.Random) -> str:
    """Return the other strand with every twentieth base drawn anew."""
    letters = list(reverse_complement(fragment))
    for _ in range(len(letters) // 20):
        letters[rng.randrange(len(letters))] = rng.choice("ACGT")
    return "".join(letters)


def write_fasta(path: Path, sequences: list[str]) -> None:
    """Write numbered records."""
    path.write_text("".join(f">{number}\n{sequence}\n" for number, sequence in enumerate(sequences)), encoding="ascii")


def sequences(path: Path) -> list[str]:
    """Return the sequences of a file written here."""
    return path.read_text(encoding="ascii").split("\n")[1::2]


# --- the other trainers --------------------------------------------------------------------------------------------------------------


def train_others(work: Path) -> dict[str, Any]:
    """Train `tokenizers` (DNA, protein) and sentencepiece (DNA) on the same files, each in a process of its own; return what they cost."""
    place = work / "others.json"
    if not place.exists():
        costs = {name: timed([sys.executable, __file__, *arguments]) for name, arguments in {
            "tokenizers dna": ["--train", "tokenizers", str(work / "dna.fa"), str(work / "standalone_dna")],
            "sentencepiece dna": ["--train", "sentencepiece", str(work / "dna.fa"), str(work / "sentencepiece_dna")],
            "tokenizers protein": ["--train", "tokenizers", str(work / "protein.fa"), str(work / "standalone_protein")],
        }.items()}  # fmt: skip
        place.write_text(json.dumps(costs))
    return dict(json.loads(place.read_text()))


def train_other(library: str, text: Path, out: Path) -> None:
    """Train one stand-alone vocabulary."""
    words = sequences(text)
    if library == "sentencepiece":
        import sentencepiece

        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(words), model_prefix=str(out), model_type="bpe", vocab_size=SIZE, character_coverage=1.0,
            max_sentencepiece_length=MAX_LENGTH, max_sentence_length=100_000, num_threads=1, minloglevel=2,
        )  # fmt: skip
        return
    from tokenizers import Tokenizer, models, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    letters = len(set().union(*words))
    # its limit is exclusive: "less than max_token_length"
    trainer = trainers.BpeTrainer(vocab_size=SIZE + letters, show_progress=False, max_token_length=MAX_LENGTH + 1)
    trained.train_from_iterator(words, trainer)
    PreTrainedTokenizerFast(tokenizer_object=trained).save_pretrained(out)


def shortened(folder: Path, size: int) -> Path:
    """Return a stand-alone vocabulary of the first `size` merges: training for `size` gives just these."""
    out = folder.with_name(f"{folder.name}_{size}")
    if size == SIZE or out.exists():
        return folder if size == SIZE else out
    content = json.loads((folder / "tokenizer.json").read_text())
    model = content["model"]
    model["merges"] = model["merges"][:size]
    kept = {left + right for left, right in model["merges"]}
    model["vocab"] = {piece: number for piece, number in model["vocab"].items() if len(piece) == 1 or piece in kept}
    out.mkdir()
    (out / "tokenizer.json").write_text(json.dumps(content))
    (out / "tokenizer_config.json").write_text((folder / "tokenizer_config.json").read_text())
    return out


def timed(command: list[str]) -> dict[str, float]:
    """Run a command; return its CPU seconds and peak memory in GB."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return {"cpu": usage.ru_utime + usage.ru_stime, "wall": time.monotonic() - started, "memory": usage.ru_maxrss / 1e6}


# --- ours, through the command line ---------------------------------------------------------------------------------------------------


class Commands:
    """The commands for one base, and what each cost."""

    def __init__(self, folder: Path, base: Path, texts: Path, sizes: list[int]) -> None:
        self.folder, self.base, self.texts, self.sizes = folder, base, texts, sizes
        self.costs: dict[str, dict[str, float]] = {}
        folder.mkdir(exist_ok=True)

    def vocab(self, name: str, *arguments: str) -> Path:
        """Run `llama-gene vocab ... --out folder/name` unless it is there; return that folder."""
        out, cost = self.folder / name, self.folder / f"{name}.cost.json"
        if not cost.exists():
            cost.write_text(json.dumps(timed([sys.executable, "-m", "llama_gene.cli", "vocab", *arguments, "--out", str(out)])))
        self.costs[name] = json.loads(cost.read_text())
        return out

    def warm_up(self) -> None:
        """Compile the trainer once, beside the measurements."""
        (self.texts / "warm.fa").write_text(">1\n" + "ACGTTGCAACGTTTGATTACA" * 100 + "\n")
        self.vocab("warm", "train", "--kind", "dna", "--base", str(self.base), "--input", str(self.texts / "warm.fa"), "--size", "10")

    def two_steps(self, name: str, strict: str | None = None) -> Path:
        """Train DNA, splice, train protein behind it, splice; return the tokenizer folder."""
        mode = ("--strict", strict) if strict else ()
        dna_size, protein_size = (("--size", str(size)) for size in self.sizes)
        dna_text, protein_text = str(self.texts / "dna.fa"), str(self.texts / "protein.fa")
        dna = self.vocab(f"{name}_dna", "train", "--kind", "dna", "--base", str(self.base), "--input", dna_text, *dna_size, *mode)
        first = self.vocab(f"{name}_1", "splice", "--base", str(self.base), "--pieces", str(dna))
        protein = self.vocab(
            f"{name}_protein", "train", "--kind", "protein", "--base", str(first), "--input", protein_text, *protein_size, *mode
        )
        return self.vocab(f"{name}_2", "splice", "--base", str(first), "--pieces", str(protein))

    def paper_pieces(self, kind: str) -> Path:
        """Train 30,000 stand-alone pieces as the papers do, on the same text."""
        common = ("--kind", kind, "--method", "paper", "--size", "30000")
        return self.vocab(f"paper_{kind}", "train", *common, "--input", str(self.texts / f"{kind}.fa"))

    def papers(self, name: str, *pieces: str) -> Path:
        """Splice pieces as the papers do."""
        return self.vocab(name, "splice", "--base", str(self.base), "--pieces", *pieces, "--method", "paper")

    def curve(self, english: Path) -> Path:
        """Train the protein step more or less strictly, and report all of them on the same texts."""
        seen = str(self.texts / "english")
        variants: dict[str, tuple[str, ...]] = {"default_2": (), "strict_2": ()}  # these two are there already
        variants |= {f"seen_{count}_times": ("--strict", seen, "--strict_count", str(count)) for count in (10, 3)}
        variants |= {"strict_from_3_letters": ("--strict", seen, "--min_length", "3"), "from_4_letters": ("--min_length", "4")}
        first, folders = str(self.folder / "default_1"), []
        for name, mode in variants.items():
            common = ("--kind", "protein", "--base", first, "--input", str(self.texts / "protein.fa"), "--size", str(SIZE))
            pieces = self.vocab(f"{name}_pieces", "train", *common, *mode) if mode else None
            made = self.vocab(name, "splice", "--base", first, "--pieces", str(pieces)) if pieces else self.folder / name
            folders.append(str(made))
        arguments = ("--base", str(self.base), "--protein", str(self.texts / "protein_held_out.fa"), "--english", str(english))
        return self.vocab("curve.json", "report", "--tokenizer", folders[0], "--compare", *folders[1:], *arguments)

    def report(self, folder: Path, name: str, english: Path) -> dict[str, Any]:
        """Measure a folder on the held-out texts."""
        out = self.vocab(
            f"report_{name}.json", "report", "--tokenizer", str(folder), "--base", str(self.base),
            "--dna", *(str(self.texts / f"{species}.fa") for species in HELD_OUT), "--protein", str(self.texts / "protein_held_out.fa"),
            "--english", str(english), "--standalone_dna", str(shortened(self.texts / "standalone_dna", self.sizes[0])),
            "--standalone_protein", str(shortened(self.texts / "standalone_protein", self.sizes[1])),
        )  # fmt: skip
        return dict(json.loads(out.read_text()))


# --- the table -----------------------------------------------------------------------------------------------------------------------


def table(reports: dict[str, dict[str, Any]], run: Commands, others: dict[str, Any], base: str) -> list[str]:
    """Return the rows of docs/results.md."""
    prefix = base == "llama2"  # its dummy prefix is one more token a text; the stand-alone vocabulary has none

    def ratio(numbers: dict[str, Any], source: str) -> float:
        row = numbers["by_source"][source]
        texts = len(sequences(run.texts / source))
        standalone_tokens = row["letters"] / row["letters_per_token_standalone"] + texts * prefix
        return float(standalone_tokens / row["tokens"])

    def changed(numbers: dict[str, Any]) -> float:
        return float(numbers["english_tokens_changed_outside_genes"] / numbers["english_tokens_outside_genes"])

    rows = [f"| {base} | default | strict | papers' own pieces | papers' recipe, same text |", "|---|---:|---:|---:|---:|"]
    reported = tuple(reports.values())
    rows.append("| new pieces | " + " | ".join(f"{numbers['pieces']:,}" for numbers in reported) + " |")
    rows.append("| unreachable | " + " | ".join(f"{numbers['unreachable']:,}" for numbers in reported) + " |")
    for source in (*(f"{species}.fa" for species in HELD_OUT), "protein_held_out.fa"):
        cells = (f"{numbers['by_source'][source]['letters_per_token']:.3f} = {ratio(numbers, source):.4f} x" for numbers in reported)
        rows.append(f"| {source.removesuffix('.fa')}: letters a token, of stand-alone | " + " | ".join(cells) + " |")
    rows.append("| unseen English, tokens changed | " + " | ".join(f"{changed(numbers):.3%}" for numbers in reported) + " |")
    rows.append(
        "| native library == transformers, texts that differ | "
        + " | ".join(f"{numbers['library_mismatches']:,}" for numbers in reported)
        + " |"
    )
    rows.append("| round trips that fail | " + " | ".join(f"{numbers['roundtrip_failures']:,}" for numbers in reported) + " |")
    steps = [(run.folder / f"{name}_1", run.folder / f"{name}_2") for name in ("default", "strict")]
    cells = (f"{dna_changed(first, second, run.texts):,}" for first, second in steps)
    rows.append("| DNA texts whose ids the protein step changes | " + " | ".join(cells) + " | | |")
    cells = (f"{base_changed(run.base, second):,}" for _, second in steps)
    rows.append("| base and special ids that mean something else | " + " | ".join(cells) + " | | |")
    rows += ["", "| training | CPU s | peak GB |", "|---|---:|---:|"]
    ours = {
        f"ours, {name.replace('_', ' ')}": run.costs[name] for name in ("default_dna", "strict_dna", "default_protein", "strict_protein")
    }
    for name, cost in {**ours, **others}.items():
        rows.append(f"| {name} | {cost['cpu']:.1f} | {cost['memory']:.2f} |")
    return rows


def dna_changed(first: Path, second: Path, texts: Path) -> int:
    """Return how many held-out DNA texts two tokenizer folders encode differently."""
    dna = [text for species in HELD_OUT for text in sequences(texts / f"{species}.fa")]
    before, after = (encode_batch(load_tokenizer(folder), dna) for folder in (first, second))
    return sum(one != other for one, other in zip(before, after, strict=True))


def base_changed(base: Path, folder: Path) -> int:
    """Return how many ids of the base, special tokens included, are another token in the folder."""
    before, after = (load_tokenizer(place) for place in (base, folder))
    ids = list(range(len(before)))
    return sum(one != other for one, other in zip(before.convert_ids_to_tokens(ids), after.convert_ids_to_tokens(ids), strict=True))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train_other(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
