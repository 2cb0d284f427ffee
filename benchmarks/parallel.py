"""The same numbers on every launcher: plain, torchrun and `deepspeed`, ZeRO-1, 2, 3, with and without offload, two processes as one.

All train the same tiny base with the same adapter in float32, without dropout, on the same global batches in the same order, through
launch/pretrain.py (packed rows of DNA, protein and English) and launch/sft.py (instructions whose answers are at least three times as
long on the second process as on the first). Compared with one process: the loss of each step and the saved adapter. The last lines give
one of the two processes other rows, and must be far off; the script ends with 1 where a line is not what it should be.

    python benchmarks/parallel.py [--work FOLDER] [--steps 20] [--only zero2 torchrun]

Prints a Markdown table. Needs Linux and a C++ compiler: DeepSpeed compiles its communication op, and CPU Adam for offload, once
(50 and 80 s on one core; kept in TORCH_EXTENSIONS_DIR). About 20 s a launch on two cores.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file

from llama_gene import runtime
from llama_gene.data.instructions import Example, read_examples
from llama_gene.data.mixing import mixture_index
from llama_gene.data.packing import IGNORED, pack_examples
from llama_gene.data.settings import CutPolicy, Source, SplitPolicy
from llama_gene.data.supervised import encode_examples
from llama_gene.models.build import new_model
from llama_gene.models.settings import Architecture
from llama_gene.recipes import corpus, instruct, pack, vocab
from llama_gene.tokenization.tokenizer import load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
MICRO_BATCH, ROWS_A_STEP = 2, 8
ROW_LENGTH = 64  # of packed rows: several documents in each
EXAMPLE_LENGTH = 448  # an example fills more than half of it, so that each has a row of its own
LIMIT, LEAST_FALL, FAR = 1e-4, 0.3, 1e-2
LABELS = {0: "No", 1: "Yes, it does"}  # 3 and 9 tokens with the end
SEED = 0


@dataclass(frozen=True)
class Launch:
    """How a run is started."""

    name: str
    launcher: str
    """python, torchrun or deepspeed."""
    zero: str | None = None
    """The file of ds_configs/ without its ending."""


ALONE = Launch("one process", "python")
LAUNCHES = [
    Launch("torchrun, DDP", "torchrun"),
    Launch("deepspeed, zero1", "deepspeed", "zero1"),
    Launch("deepspeed, zero2", "deepspeed", "zero2"),
    Launch("deepspeed, zero3", "deepspeed", "zero3"),
    Launch("deepspeed, zero2_offload", "deepspeed", "zero2_offload"),
    Launch("deepspeed, zero3_offload", "deepspeed", "zero3_offload"),
]


@dataclass(frozen=True)
class Job:
    """A stage with what it trains on."""

    rows: str
    stage: str
    config: dict[str, Any]
    other: dict[str, Any]
    """Keys with which a process reads other rows."""


@dataclass(frozen=True)
class Outcome:
    """What a run left."""

    losses: list[float]
    weights: dict[str, Any]
    seconds: float


# --- what is trained ---------------------------------------------------------------------------------------------------------------


def make_jobs(folder: Path, steps: int) -> list[Job]:
    """Write base, rows and instructions; return the two jobs."""
    texts = write_texts(folder / "texts", seed=0)
    read = write_corpus(texts, folder / "corpus")
    plain = vocab.run(vocab.Config(base_size=400, base_inputs=[str(read / "english.train")], out=folder / "base_tokenizer"))
    base = make_base(plain, folder / "base")
    languages = [vocab.Step(kind, [str(read / f"{kind}.train")], size=96) for kind in ("dna", "protein")]
    tokenizer = vocab.run(vocab.Config(base=str(base), steps=languages, out=folder / "tokenizer"))
    rows = [
        pack.run(pack.Config(corpus=documents, tokenizer=str(tokenizer), row_length=ROW_LENGTH, output_dir=folder / f"rows{number}"))
        for number, documents in enumerate([read, write_corpus(write_texts(folder / "other_texts", seed=1), folder / "other_corpus")])
    ]
    examples = [write_instructions(folder, seed, plain, steps * ROWS_A_STEP) for seed in (0, 1)]
    lora = {"rank": 4, "dropout": 0.0}
    train = {"steps": steps, "batch_size": MICRO_BATCH, "learning_rate": 5e-3, "precision": "fp32", "logging_steps": 1, "seed": SEED}
    tune = {"model": str(base), "instructions": str(examples[0]), "max_length": EXAMPLE_LENGTH, "lora": lora, "train": train}
    return [
        Job("packed", "pretrain", {"base": str(base), "rows": str(rows[0]), "lora": lora, "train": train}, {"rows": str(rows[1])}),
        Job("SFT", "sft", tune, {"instructions": str(examples[1])}),
    ]


def write_texts(folder: Path, seed: int) -> dict[str, Path]:
    """Write made-up genomes, proteins and sentences, drawn from small dictionaries of words; return the files by language."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    paths = {"dna": folder / "genome.fa", "protein": folder / "proteome.fa", "english": folder / "english.jsonl"}
    for language, letters, num, length in (("dna", "ACGT", 16, 900), ("protein", "ACDEFGHIKLMNPQRSTVWY", 80, 120)):
        words = ["".join(rng.choices(letters, k=rng.randint(3, 8))) for _ in range(150)]
        texts = ["".join(rng.choice(words) for _ in range(length // 5)) for _ in range(num)]
        paths[language].write_text("".join(f">{language}{number}\n{text}\n" for number, text in enumerate(texts)))
    subjects, verbs, objects = (
        ("The gene", "This cell", "A protein", "That strand"),
        ("binds", "copies", "reads"),
        ("DNA", "it", "a promoter"),
    )
    sentences = [f"{subject} {verb} {target}." for subject in subjects for verb in verbs for target in objects]
    lines = [json.dumps({"text": f"{number}: " + " ".join(rng.choices(sentences, k=8))}) for number in range(60)]
    paths["english"].write_text("\n".join(lines) + "\n")
    return paths


def write_corpus(texts: dict[str, Path], folder: Path) -> Path:
    """Return the corpus of these files."""
    sources = [Source(language, inputs=[str(path)]) for language, path in texts.items()]
    cut, split = CutPolicy(min_fragment=60, max_fragment=200), SplitPolicy(valid_fraction=0.1)
    corpus.run(corpus.Config(sources=sources, cut=cut, split=split, output_dir=folder))
    return folder


def make_base(tokenizer_dir: Path, folder: Path) -> Path:
    """Write a random LLaMA of two layers and width 32 with this tokenizer."""
    tokenizer = load_tokenizer(tokenizer_dir)
    model = new_model(Architecture(width=32, layers=2, heads=4, max_length=512), tokenizer, SEED)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in tokenizer_dir.glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def write_instructions(folder: Path, seed: int, tokenizer_dir: Path, num: int) -> Path:
    """Write instructions, half with a long answer, in the order in which `sft` gives every second micro-batch the long ones."""
    rng = random.Random(f"instructions/{seed}")
    tables = folder / f"tables{seed}"
    tables.mkdir(parents=True)
    for split, size in (("train", num), ("dev", 8), ("test", 8)):
        lines = ["sequence,label"]
        for number in range(size):
            text = "".join(rng.choices("ACG", k=40))
            lines.append(f"{text[:15] + 'TATAAA' + text[21:] if number % 2 else text},{number % 2}")
        (tables / f"{split}.csv").write_text("\n".join(lines) + "\n")
    task = {"name": "tata", "title": "TATA box detection", "family": "classification", "strand": "sense", "labels": LABELS}
    (tables / "tata.yaml").write_text(yaml.safe_dump({**task, **{split: f"{split}.csv" for split in ("train", "dev", "test")}}))
    written = instruct.run(instruct.Config(tasks=[tables / "tata.yaml"], output_dir=folder / f"instructions{seed}"))
    path = written / "train.jsonl"
    ordered = by_process(read_examples(path))
    path.write_text("".join(json.dumps(example) + "\n" for example in ordered))
    check_targets(ordered, load_tokenizer(tokenizer_dir))
    return written


def reading_order(num: int) -> list[int]:
    """Return, place by place, which line of train.jsonl `sft` reads: its lines are shuffled, and rows come by a seeded index."""
    lines = list(range(num))
    random.Random(SEED).shuffle(lines)
    return [lines[row] for _, row in mixture_index({"instructions": num}, {"instructions": 1.0}, num, SEED)]


def is_second(place: int) -> bool:
    """Return whether the second of two processes gets the row at this place: micro-batches go to them in turns."""
    return place // MICRO_BATCH % 2 == 1


def by_process(examples: Sequence[Example]) -> list[Example]:
    """Return the examples in the order that gives the first process the short answers and the second the long ones."""
    long = iter([example for example in examples if example["output"] == LABELS[1]])
    short = iter([example for example in examples if example["output"] == LABELS[0]])
    ordered: list[Any] = [None] * len(examples)
    for place, line in enumerate(reading_order(len(examples))):
        ordered[line] = next(long if is_second(place) else short)
    return ordered


def check_targets(examples: Sequence[Example], tokenizer: Any) -> None:
    """Make sure that each example has its row, and that each step has three times the targets on the second process; print the ratio."""
    lines = list(examples)
    random.Random(SEED).shuffle(lines)
    encoded = encode_examples(tokenizer, lines, EXAMPLE_LENGTH, "alpaca", "response")
    rows = pack_examples(((row.input_ids, row.labels) for row in encoded.rows), EXAMPLE_LENGTH)
    assert len(rows) == len(examples) and not encoded.num_shortened, "two examples share a row, or one was shortened"
    ratios = []
    order = [row for _, row in mixture_index({"instructions": len(rows)}, {"instructions": 1.0}, len(rows), SEED)]
    for first in range(0, len(rows), ROWS_A_STEP):
        targets = [0, 0]
        for place in range(first, first + ROWS_A_STEP):
            targets[is_second(place)] += sum(label != IGNORED for label in rows[order[place]]["labels"])
        ratios.append(targets[1] / targets[0])
    print(f"SFT: target tokens of the second process over those of the first, each step: {min(ratios):.2f} to {max(ratios):.2f}")
    assert min(ratios) >= 3


# --- launching -----------------------------------------------------------------------------------------------------------------------


def write_config(job: Job, launch: Launch, folder: Path, **changes: Any) -> Path:
    """Write the YAML of a run into its folder: the same global batches for any number of processes."""
    processes = 1 if launch.launcher == "python" else 2
    train = {**job.config["train"], "accumulation": ROWS_A_STEP // MICRO_BATCH // processes}
    if launch.zero:
        train["deepspeed"] = str(ROOT / "ds_configs" / f"{launch.zero}.json")
    config = {**job.config, "train": train, "output_dir": str(folder / "out"), **changes}
    path = folder / f"{'other' if changes else 'config'}.yaml"
    runtime.write_text(path, yaml.safe_dump(config))
    return path


def commands(job: Job, launch: Launch, folder: Path, other_rows: bool) -> Iterator[list[str]]:
    """Yield the commands that together start one run; with `other_rows` the second process is started apart and reads other rows."""
    port, python = str(runtime.free_port()), sys.executable
    script = [str(ROOT / "launch" / f"{job.stage}.py"), "--config"]
    config = str(write_config(job, launch, folder))
    if launch.launcher == "python":
        yield [python, *script, config]
    elif launch.launcher == "deepspeed":
        yield [python, "-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--master_port", port, *script, config]
    elif not other_rows:
        yield [python, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port, *script, config]
    else:
        for node, file in enumerate([config, str(write_config(job, launch, folder, **job.other))]):
            place = ["--nnodes", "2", "--node_rank", str(node), "--master_addr", "127.0.0.1", "--master_port", port]
            yield [python, "-m", "torch.distributed.run", *place, "--nproc_per_node", "1", *script, file]


def start(job: Job, launch: Launch, folder: Path, other_rows: bool = False) -> Outcome:
    """Run a job; return what it left. Ends the script with the last lines of its output where it fails."""
    folder.mkdir(parents=True)
    environment = {**runtime.launch_environment(2), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    running = []
    for number, command in enumerate(commands(job, launch, folder, other_rows)):
        log = (folder / f"log{number}.txt").open("w")
        running.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT))
    codes = [process.wait() for process in running]
    if any(codes):
        logs = "\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("log*.txt")))
        sys.exit(f"{launch.name}, {job.rows} rows: exit codes {codes}\n{logs}")
    history = json.loads((folder / "out/training.json").read_text())
    weights = load_file(folder / "out/adapter_model.safetensors")
    return Outcome([entry["loss"] for entry in history], weights, time.perf_counter() - began)


# --- comparing -----------------------------------------------------------------------------------------------------------------------


def gaps(one: Outcome, other: Outcome) -> tuple[float, float]:
    """Return the largest difference of a loss and of a saved weight."""
    assert len(one.losses) == len(other.losses) and one.weights.keys() == other.weights.keys()
    losses = max(abs(a - b) for a, b in zip(one.losses, other.losses, strict=True))
    return losses, max(float((one.weights[name] - other.weights[name]).abs().max()) for name in one.weights)


def line(job: Job, name: str, alone: Outcome, outcome: Outcome, other_rows: bool = False) -> bool:
    """Print a line of the table; return whether it is as it should be."""
    loss, weight = gaps(alone, outcome)
    fall = outcome.losses[0] - outcome.losses[-1]
    if other_rows:
        right, verdict = loss > FAR and weight > FAR, "far off, as it must be"
    else:
        right, verdict = loss < LIMIT and weight < LIMIT and fall >= LEAST_FALL, "equal"
    cells = [name, job.rows, str(len(outcome.losses)), f"{loss:.1e}", f"{weight:.1e}", f"{fall:.2f}", f"{outcome.seconds:.0f}"]
    print("| " + " | ".join([*cells, verdict if right else "WRONG"]) + " |", flush=True)
    return right


def main() -> None:
    """Prepare, launch, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder to keep, new or empty; a temporary one if not given")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of launches to run")
    asked = parser.parse_args()
    runtime.set_library_switches()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.work or Path(temporary)).resolve()
        jobs = make_jobs(folder / "data", asked.steps)
        print("| launch | rows | steps | largest loss difference | largest weight difference | fall of the loss | s | |")
        print("|---|---|---:|---:|---:|---:|---:|---|", flush=True)
        right = []
        for job in jobs:
            alone = start(job, ALONE, folder / job.stage / "alone")
            right.append(line(job, ALONE.name, alone, alone))
            for launch in LAUNCHES:
                if not asked.only or any(part in launch.name for part in asked.only):
                    outcome = start(job, launch, folder / job.stage / (launch.zero or "ddp"))
                    right.append(line(job, f"2 processes: {launch.name}", alone, outcome))
            outcome = start(job, LAUNCHES[0], folder / job.stage / "other_rows", other_rows=True)
            right.append(line(job, f"2 processes: {LAUNCHES[0].name}, other rows on one", alone, outcome, other_rows=True))
    sys.exit(0 if all(right) else 1)


if __name__ == "__main__":
    main()
