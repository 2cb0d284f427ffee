"""run: all stages from one YAML, each in its own folder, resumed where they stopped.

A stage's key is the fingerprint of its config, of the files it reads and of the stages before it. A folder whose key is unchanged is
reused; a changed key runs the stage and everything after it again. Training stages run in processes of their own (through the
DeepSpeed launcher when there are several), so that this process stays small and a crash in one leaves the others' work in place.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError, LlamaGeneError
from llama_gene.models.settings import Architecture
from llama_gene.recipes import corpus, evaluate, export, instruct, pack, pretrain, sft, vocab
from llama_gene.recipes.train_stage import plan
from llama_gene.sequences.alphabet import get_alphabet
from llama_gene.sequences.sources import ENGLISH
from llama_gene.training.settings import TrainSettings

STATE_NAME = "run.json"
SIMULATED_NAME = "0_simulated"  # written by `demo` before the walk


@dataclass
class BaseFromScratch:
    """A small base that the run makes itself: its own SentencePiece tokenizer, trained and pretrained on one language."""

    language: str = "english"
    """Language of the corpus that the base learns."""
    vocab_size: int = 2000
    """Pieces of its tokenizer."""
    row_length: int = 256
    """Tokens a row."""
    architecture: Architecture = field(default_factory=Architecture)
    """Its shape."""
    train: TrainSettings = field(default_factory=TrainSettings)
    """How it is trained."""


@dataclass
class Config:
    """All stages. Paths between stages are filled in; give only what you want to change."""

    output_dir: Path | None = None
    """Folder of the run; each stage writes a folder inside it."""
    data_dir: Path | None = None
    """Folder that relative inputs and task files are looked up in (LLAMA_GENE_DATA if unset)."""
    processes: int = 1
    """Processes of the training stages that name a DeepSpeed JSON; without one (or off Linux) one process is used."""
    base: str | None = None
    """Base model: a hub id or a local folder."""
    base_from_scratch: BaseFromScratch | None = None
    """Make a small base instead."""
    corpus: corpus.Config = field(default_factory=corpus.Config)
    """Stage 1."""
    vocab: vocab.Config = field(default_factory=vocab.Config)
    """Stage 2."""
    pack: pack.Config = field(default_factory=pack.Config)
    """Stage 3."""
    pretrain_stages: list[pretrain.Config] = field(default_factory=list)
    """Stage 4 as several trainings instead, each on the merged model of the one before (LLaMA-Gene: DNA, then DNA and protein); tuning then
    starts from the last merged model. Each is kept, and resumed where it stopped."""
    pretrain: pretrain.Config = field(default_factory=pretrain.Config)
    """Stage 4."""
    instruct: instruct.Config = field(default_factory=instruct.Config)
    """Stage 5."""
    sft: sft.Config = field(default_factory=sft.Config)
    """Stage 6."""
    evaluate: evaluate.Config = field(default_factory=evaluate.Config)
    """Stage 7."""
    export: export.Config = field(default_factory=export.Config)
    """Stage 8."""
    num_questions: int = 20
    """Held-out questions with known answers that the exported model is asked at the end."""


def run(config: Config) -> Path:
    """Walk all stages; return the run's folder. Ends with the table, the exported model's path and the next command."""
    if config.output_dir is None:
        raise ConfigError("no output_dir is given", "--output_dir FOLDER")
    if (config.base is None) == (config.base_from_scratch is None):
        raise ConfigError(
            "base and base_from_scratch are " + ("both unset" if config.base is None else "both given"), "exactly one of them"
        )
    _check_stages(config)
    root = config.output_dir.resolve()
    if root.is_dir() and any(root.iterdir()) and not any((root / name).exists() for name in (STATE_NAME, SIMULATED_NAME)):
        raise InputError(
            f"{root} holds files and no {STATE_NAME}", "a new folder, or the folder of an earlier run", "Choose another output_dir"
        )
    if config.base is not None:
        from llama_gene.tokenization.tokenizer import load_tokenizer

        load_tokenizer(config.base)  # a base that cannot be had is said before the hours that the corpus may take
    _Walk(config, root).walk()
    return config.output_dir


def _check_stages(config: Config) -> None:
    """Raise ConfigError, before days of work, for trainings that cannot be walked through."""
    stages = config.pretrain_stages
    for name, stage in (
        *((f"pretrain_stages[{number}]", stage) for number, stage in enumerate(stages)),
        *((key, getattr(config, key)) for key in ("pretrain", "sft")),
    ):
        if stage.dry_run or stage.preview:
            raise ConfigError(f"{name} has dry_run or preview set", "neither, in a run", f"Look at one stage alone: llama-gene {name[:8]}")
    if stages and config.pretrain != pretrain.Config():
        raise ConfigError("pretrain and pretrain_stages are both given", "one of the two", "Move pretrain into the list")
    for number, stage in enumerate(stages[1:], 1):
        if stage.lora.rows == "new":
            raise ConfigError(f"pretrain_stages[{number}].lora.rows is 'new'", "all: the first stage has grown the vocabulary", "Use all")


def fill_vocab(config: vocab.Config, corpus_dir: Path) -> None:
    """Fill in what `config` leaves open from a corpus: a step for each kind of gene text, and the files that steps and report read.

    Nucleotides come before proteins, as in LLaMA-Gene 2.3.1. Languages of one kind share a step.
    """
    languages = runtime.read_manifest(corpus_dir, "corpus")["languages"]
    texts: dict[str, dict[str, list[str]]] = {}  # kind -> split -> files; a split without a document has none
    letters: Counter[str] = Counter()
    for name, facts in languages.items():
        letters[facts["kind"]] += facts["letters_kept"]["train"]
        for split, count in facts["documents"].items():
            if count:
                texts.setdefault(facts["kind"], {}).setdefault(split, []).append(str(corpus_dir / f"{name}.{split}"))
    if not config.steps:
        kinds = sorted((kind for kind in texts if kind != ENGLISH), key=lambda kind: len(get_alphabet(kind).letters))
        config.steps = [vocab.Step(kind=kind, size=num_new_pieces(letters[kind])) for kind in kinds]
    for step in config.steps:
        step.input = step.input or texts.get(step.kind, {}).get("train", [])
    config.dna = config.dna or texts.get("dna", {}).get("valid", [])
    config.protein = config.protein or texts.get("protein", {}).get("valid", [])
    config.english = config.english or texts.get(ENGLISH, {}).get("valid", [])


def num_new_pieces(num_letters: int) -> int:
    """Return how many pieces a step gets when its size is not given: one for every 400 letters, in 128s, at least 128 and at most 30,080.

    A piece that training hardly meets costs two embedding rows and learns nothing; 12 million letters are enough for all 30,080.

    >>> num_new_pieces(20_000), num_new_pieces(600_000), num_new_pieces(3_000_000_000)
    (128, 1408, 30080)
    """
    return min(vocab.Step.size, max(128, num_letters // 400 // 128 * 128))


class _Walk:
    """One walk through the stages: the folders, the keys, and how each stage is started."""

    def __init__(self, config: Config, root: Path) -> None:
        self.config = config
        self.root = root
        self.keys: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        state = runtime.read_json(root / STATE_NAME) if (root / STATE_NAME).is_file() else {}
        self.finished: dict[str, str] = state.get("finished", {})
        self.started: dict[str, str] = state.get("started", {})

    def walk(self) -> None:
        """Run what is not done yet, in the order of the data."""
        config, root = self.config, self.root
        corpus_dir = root / "1_corpus"
        config.corpus.data_dir = config.corpus.data_dir or config.data_dir
        self.stage("corpus", config.corpus, corpus_dir, corpus.run, after=[])

        base = config.base or str(self._base(corpus_dir))
        config.vocab.base = base
        fill_vocab(config.vocab, corpus_dir)
        self.stage("vocab", config.vocab, root / "2_vocab", vocab.run, after=["corpus", "base"])

        config.pack.corpus, config.pack.tokenizer = corpus_dir, str(root / "2_vocab")
        self.stage("pack", config.pack, root / "3_rows", pack.run, after=["corpus", "vocab"])

        pretrained = self._pretrain(base)

        config.instruct.tokenizer = root / "2_vocab"
        config.instruct.tasks = [Path(name) for name in self._located([str(path) for path in config.instruct.tasks])]
        if config.data_dir is not None and not any(path.is_relative_to(config.data_dir) for path in config.instruct.tasks):
            # Task files outside the data folder name tables inside it; those inside it name tables beside themselves.
            config.instruct.data_dir = config.instruct.data_dir or config.data_dir
        tables = [runtime.file_hash(path) for path in instruct.input_files(config.instruct)]
        self.stage("instruct", config.instruct, root / "5_instructions", instruct.run, after=["vocab"], files=tables)

        config.sft.model, config.sft.instructions = str(pretrained), root / "5_instructions"
        config.sft.replay = root / "3_rows" if config.sft.replay_shares else None
        self.stage("sft", config.sft, root / "6_tuned", None, after=["pretrain", "merge", "instruct"])

        config.evaluate.model, config.evaluate.instructions = str(root / "6_tuned"), root / "5_instructions"
        config.evaluate.base, config.evaluate.corpus = base, corpus_dir
        self.stage("evaluate", config.evaluate, root / "7_results", evaluate.run, after=["sft", "instruct", "corpus"])

        config.export.model, config.export.results = root / "6_tuned", root / "7_results"
        self.stage("export", config.export, root / "8_model", export.run, after=["sft", "evaluate"])
        self._report()

    def _pretrain(self, base: str) -> Path:
        """Train stage 4, at once or in stages with a merge behind each; return the folder that tuning starts from."""
        root, stages = self.root, self.config.pretrain_stages
        if not stages:
            self.config.pretrain.base, self.config.pretrain.rows = base, root / "3_rows"
            self.stage("pretrain", self.config.pretrain, root / "4_pretrained", None, after=["pack", "base"])
            return root / "4_pretrained"
        merged = root / "4_model"
        after = ["pack", "base"]
        for number, stage in enumerate(stages, 1):
            is_last = number == len(stages)
            suffix, place = ("", "4_") if is_last else (f"_{number}", f"4_{number}_")
            stage.base, stage.rows = base, root / "3_rows"
            self.stage(f"pretrain{suffix}", stage, root / f"{place}pretrained", None, after=after)
            merged = root / f"{place}model"
            merge = export.Config(model=root / f"{place}pretrained")
            self.stage(f"merge{suffix}", merge, merged, export.run, after=[f"pretrain{suffix}"])
            base, after = str(merged), ["pack", f"merge{suffix}"]
        return merged

    def stage(
        self, name: str, config: Any, folder: Path, run_here: Callable[[Any], Any] | None, after: Sequence[str], files: Sequence[str] = ()
    ) -> None:
        """Run one stage unless its folder is there with the same key; `run_here` None: in processes of its own."""
        setattr(config, "out" if isinstance(config, vocab.Config) else "output_dir", folder)
        log = runtime.get_logger()
        if run_here in (corpus.run, pack.run):  # they know by content whether there is anything to do, and say so
            log.info("== %s", name)
            clock = time.monotonic()
            run_here(config)
            self.keys[name] = runtime.read_manifest(folder)["key"]
            self.seconds[name] = time.monotonic() - clock
            return
        self.keys[name] = runtime.fingerprint([name, config, [self.keys.get(earlier) for earlier in after], list(files)])
        if self.finished.get(name) == self.keys[name] and (folder / runtime.MANIFEST_NAME).is_file():
            log.info("== %s: unchanged, %s is reused", name, folder.name)
            return
        log.info("== %s", name)
        clock = time.monotonic()
        if run_here is not None:
            run_here(config)
        else:
            weights = {key: value for key, value in vars(config).items() if key != "train"}
            earlier = [self.keys.get(stage) for stage in after]
            key = runtime.fingerprint([name, weights, plan(config.train), earlier])  # how often to log or look changes no weight
            config.train.restart = self.started.get(name) != key  # checkpoints of another key are of no use
            self.started[name] = key
            self._remember()
            self._launch("sft" if name == "sft" else "pretrain", config, folder.with_name(folder.name + ".yaml"))
        self.seconds[name] = time.monotonic() - clock
        self.finished[name] = self.keys[name]
        self._remember()

    def _remember(self) -> None:
        runtime.write_json(self.root / STATE_NAME, {"finished": self.finished, "started": self.started})

    def _base(self, corpus_dir: Path) -> Path:
        """Make the small base: tokenizer, rows, weights."""
        wanted = self.config.base_from_scratch
        assert wanted is not None
        folder = self.root / "0_base"
        english = corpus_dir / f"{wanted.language}.train"
        tokenizer = vocab.Config(base_size=wanted.vocab_size, base_inputs=[str(english)])
        self.stage("base_vocab", tokenizer, folder / "tokenizer", vocab.run, after=["corpus"])
        rows = pack.Config(
            corpus=corpus_dir, tokenizer=str(folder / "tokenizer"), languages=[wanted.language], row_length=wanted.row_length
        )
        self.stage("base_pack", rows, folder / "rows", pack.run, after=["corpus", "base_vocab"])
        model = pretrain.Config(rows=folder / "rows", architecture=wanted.architecture, train=wanted.train)
        self.stage("base", model, folder / "model", None, after=["base_pack"])
        return folder / "model"

    def _launch(self, stage: str, config: Any, path: Path) -> None:
        """Run a training stage in processes of its own. Raises LlamaGeneError when it fails."""
        if config.train.deepspeed is not None and not config.train.deepspeed.is_file():
            config.train.deepspeed = Path(__file__).resolve().parents[2] / config.train.deepspeed  # named from the source tree
        processes = self.config.processes if config.train.deepspeed is not None else 1
        if sys.platform != "linux" and config.train.deepspeed is not None:
            runtime.get_logger().info("no DeepSpeed on %s: one process", sys.platform)
            processes, config.train.deepspeed = 1, None
        restart, config.train.restart = config.train.restart, False  # the file may be started again by hand
        runtime.write_text(path, yaml.safe_dump(runtime.plain(config), sort_keys=False))
        command = [sys.executable, "-m", "llama_gene.cli", stage, "--config", str(path)]
        command += ["--train.restart", "true"] if restart else []
        if processes > 1:
            launcher = ["-m", "deepspeed.launcher.runner", "--log_level", "warning", "--num_gpus", str(processes)]
            launcher += ["--master_port", str(runtime.free_port()), "--module"]
            command = [sys.executable, *launcher, *command[2:]]
        returncode = _run_child(command, runtime.launch_environment(processes), is_launched=processes > 1)
        if returncode == 2:
            raise LlamaGeneError(
                f"{stage} stopped (see the line above)", "", f"Mend it and start again; what is finished in {self.root} is reused"
            )
        if returncode:
            raise LlamaGeneError(f"{stage} ended with exit code {returncode}", "0", f"See its output above; {path} repeats it alone")
        if config.output_dir.with_name(config.output_dir.name + ".work").is_dir():  # it is removed when a training stage is done
            from llama_gene.training.stopping import StoppedEarly

            raise StoppedEarly(f"the stage {stage}")

    def _located(self, patterns: Sequence[str]) -> list[str]:
        """Return paths and globs as they are where they exist, else inside the data folder."""
        data_dir = self.config.data_dir
        return [name if data_dir is None or Path(name).exists() else str(data_dir / name) for name in patterns]

    def _report(self) -> None:
        """Print the table, the model's path, the questions and the next command."""
        model = self.root / "8_model"
        print((self.root / "7_results" / "results.md").read_text(encoding="utf-8"))
        speed = {
            stage: runtime.read_manifest(self.root / folder).get("tokens_per_second")
            for stage, folder in (("pretrain", "4_pretrained"), ("sft", "6_tuned"))
        }
        print("Training speed, tokens per second: " + ", ".join(f"{stage} {value}" for stage, value in speed.items()))
        if self.seconds:
            print("Seconds: " + ", ".join(f"{stage} {value:.0f}" for stage, value in self.seconds.items()))
        if self.config.num_questions:
            print(f"\n{self.config.num_questions} held-out questions, answered by the exported model in a fresh process:\n", flush=True)
            command = [sys.executable, "-m", "llama_gene.cli", "chat", "--model", str(model)]
            command += ["--num_questions", str(self.config.num_questions), "--instructions", str(self.root / "5_instructions")]
            subprocess.run(command, check=True)
        print(f"\nMerged model (AutoModelForCausalLM and AutoTokenizer load it): {model}")
        print(f"Ask it:          llama-gene chat --model {model}")
        print("Your own files:  llama-gene run --config launch/configs/own_data/run.yaml --data_dir YOUR_FOLDER   (docs/own_data.md)")


def _run_child(command: Sequence[str], environment: dict[str, str], is_launched: bool) -> int:
    """Run a command and return its exit code; a SIGTERM to this process is passed on, and the checkpoint waited for."""
    child = subprocess.Popen(command, env=environment)
    try:
        return child.wait()
    except SystemExit:  # runtime.exit_cleanly_on_sigterm
        for process in (_trainers(child.pid) if is_launched else []) or [child]:
            process.terminate()  # DeepSpeed's runner does not pass a signal on
        return child.wait()


def _trainers(launcher: int) -> list[Any]:
    """Return the training processes under a launcher: those to which it gave a RANK, not what they started themselves (a tracker)."""
    import psutil

    ranked = {}
    for process in psutil.Process(launcher).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "RANK" in process.environ():
                ranked[process.pid] = process.ppid(), process
    return [process for parent, process in ranked.values() if parent not in ranked]
