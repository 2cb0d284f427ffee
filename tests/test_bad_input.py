"""Bad input, as a user meets it: one line on stderr, exit code 2, no traceback, and nothing half-written.

Each row of the table is a command; `{w}` is a folder with good files and with each kind of bad one.
"""

# ruff: noqa: E501  (a table: a command a row)

from __future__ import annotations

import gzip
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from llama_gene import cli
from llama_gene.data.settings import CutPolicy, Source
from llama_gene.recipes import corpus, instruct, pack
from tests.tiny_models import PIECES, save_adapter, save_model, tiny_llama, tiny_tokenizer

TASK = "name: core\ntitle: core promoter detection\nfamily: classification\nstrand: sense\nlabels: {0: Non-promoter, 1: promoter}\n"
# `run` and `demo` are not among them: they write folders of their own into the folder that they are given, and replace none.
STAGES_WITH_OUTPUT = ("corpus", "vocab", "pack", "pretrain", "instruct", "sft", "classify", "evaluate", "embed", "score", "export")


@pytest.fixture(scope="module")
def w(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good inputs of every stage, and bad ones."""
    folder = tmp_path_factory.mktemp("bad_input")
    rng = random.Random(0)
    genome = "".join(rng.choices("ACGT", k=4000))
    (folder / "good.fa").write_text(f">chr1\n{genome}\n")
    (folder / "empty.fa").write_bytes(b"")
    (folder / "header_only.fa").write_text("\n\n")
    (folder / "protein.fa").write_text(">p1 a protein\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ\n")
    (folder / "typo.fa").write_text(">chr1\nACGT\nAC!T\n")
    (folder / "binary.fa").write_bytes(bytes(rng.randrange(256) for _ in range(5000)))
    whole = gzip.compress(f">chr1\n{genome}\n".encode())
    (folder / "cut.fa.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "not_gzip.fa.gz").write_text(">chr1\nACGT\n")
    (folder / "text.jsonl").write_text('{"text": "one"}\n{"tekst": "two"}\n')
    (folder / "broken.jsonl").write_text('{"text": "one"}\n{"text": \n')
    (folder / "latin.txt").write_bytes("größer".encode("latin-1"))
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("years of work")
    (folder / "no_folder").write_text("a file")
    (folder / "nothing").mkdir()

    corpus.run(corpus.Config([Source("dna", inputs=[str(folder / "good.fa")])], CutPolicy(20, 60), output_dir=folder / "corpus"))
    adapter = save_adapter(folder)  # folder/base and folder/adapter
    tiny_tokenizer(PIECES).save_pretrained(folder / "tokenizer")
    pack.run(pack.Config(folder / "corpus", str(folder / "tokenizer"), row_length=32, output_dir=folder / "rows"))
    tiny_tokenizer(("CA", "TG")).save_pretrained(folder / "other_tokenizer")
    pack.run(pack.Config(folder / "corpus", str(folder / "other_tokenizer"), row_length=32, output_dir=folder / "retrained_rows"))
    tiny_tokenizer(("CA", "TT")).save_pretrained(folder / "other_tokenizer")  # the rows stay, their tokenizer is trained again
    save_model(tiny_llama(), tiny_tokenizer(), folder / "no_weights")
    (folder / "no_weights" / "model.safetensors").unlink()
    save_model(tiny_llama(), tiny_tokenizer(), folder / "cut_weights")
    weights = (folder / "cut_weights" / "model.safetensors").read_bytes()
    (folder / "cut_weights" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    save_model(tiny_llama(vocab_size=300), _shuffled_tokenizer(), folder / "foreign_base")

    for name in ("tampered", "no_base", "cut_adapter"):
        shutil.copytree(adapter, folder / name)
    (folder / "tampered" / "tokenizer.json").write_bytes((folder / "other_tokenizer" / "tokenizer.json").read_bytes())
    manifest = (folder / "no_base" / "manifest.json").read_text()
    (folder / "no_base" / "manifest.json").write_text(manifest.replace(str(folder / "base"), str(folder / "gone")))
    weights = (folder / "cut_adapter" / "adapter_model.safetensors").read_bytes()
    (folder / "cut_adapter" / "adapter_model.safetensors").write_bytes(weights[:5000])

    for split, num in (("train", 40), ("test", 20)):
        rows = [f"{''.join(rng.choices('ACGT', k=30))},{number % 2}" for number in range(num)]
        (folder / f"{split}.csv").write_text("sequence,label\n" + "\n".join(rows) + "\n")
    (folder / "wrong_letters.csv").write_text("sequence,label\nACGT,0\nMKTQ,1\n")
    (folder / "task.yaml").write_text(TASK + "train: train.csv\ntest: test.csv\n")
    (folder / "no_table.yaml").write_text(TASK + "train: gone.csv\ntest: test.csv\n")
    (folder / "no_column.yaml").write_text(TASK + "train: train.csv\ntest: test.csv\nlabel_column: lable\n")
    (folder / "unknown_key.yaml").write_text(TASK + "train: train.csv\ntest: test.csv\nlabl_column: label\n")
    instruct.run(instruct.Config([folder / "task.yaml"], output_dir=folder / "instructions"))
    return folder


def _shuffled_tokenizer() -> object:
    """A tokenizer whose ids mean something else than those of the rows."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["another piece"])
    return tokenizer


class Bad(NamedTuple):
    """A command that must be refused."""

    name: str
    command: str
    message: str
    yaml: str = ""  # written to {w}/config.yaml


OUT = " --output_dir {w}/new/out"
CORPUS = "corpus" + OUT + " --sources"
PRETRAIN = "pretrain" + OUT + " --train.steps 1"
CONFIG = " --config {w}/config.yaml"
ONE_SOURCE = "sources:\n- language: dna\n  inputs: [{w}/good.fa]\n"

TABLE = [
    # what is no stage, no key, no value
    Bad("unknown stage", "pretrian", "there is no stage 'pretrian'; expected one of corpus, .* Did you mean 'pretrain'?"),
    Bad("unknown flag", "corpus --output_dri x", "unknown key 'output_dri'; expected a key of corpus. Did you mean 'output_dir'?"),
    Bad("unknown key", "corpus" + CONFIG, "line 1: unknown key 'sed'; .* Did you mean 'seed'?", "sed: 1\n"),
    Bad("unknown nested key", "pretrain" + CONFIG, "line 2: unknown key 'lora.rnk'; .* Did you mean 'rank'?", "lora:\n  rnk: 1\n"),
    Bad(
        "unknown key in a list",
        "corpus" + CONFIG,
        r"line 3: unknown key 'sources\[0\].input'; .* Did you mean 'inputs'?",
        "sources:\n- language: dna\n  input: [a.fa]\n",
    ),
    Bad("wrong type", "pretrain" + CONFIG, "train.steps is 'many'; expected a whole number", "train: {steps: many}\n"),
    Bad("wrong choice", "sft --loss answer", "loss is 'answer'; expected one of response, full"),
    Bad("yaml syntax", "corpus" + CONFIG, "config.yaml, line 2: .*; expected YAML", "seed: [1\n"),
    Bad("yaml list", "corpus" + CONFIG, "line 1: the file is a list; expected keys and values", "- seed: 1\n"),
    Bad("no config", "corpus --config {w}/gone.yaml", "gone.yaml does not exist; expected a YAML config"),
    Bad("binary config", "corpus --config {w}/binary.fa", "binary.fa is not text; expected a YAML config"),
    Bad("demo without its yaml", "demo --config_file {w}/gone.yaml" + OUT, "gone.yaml does not exist; expected the demo's YAML"),
    # sequence and text files
    Bad("missing file", CORPUS + " [{{language: dna, inputs: [{w}/gone.fa]}}]", "gone.fa does not exist; expected a file, a folder"),
    Bad("empty folder", CORPUS + " [{{language: dna, inputs: [{w}/nothing]}}]", "nothing holds no file; expected a folder that holds files"),
    Bad("empty file", CORPUS + " [{{language: dna, inputs: [{w}/empty.fa]}}]", "empty.fa holds no record; expected at least one FASTA"),
    Bad("blank file", CORPUS + " [{{language: dna, inputs: [{w}/header_only.fa]}}]", "header_only.fa.*; expected .*FASTA"),
    Bad(
        "protein as dna",
        CORPUS + " [{{language: dna, inputs: [{w}/protein.fa]}}]",
        "protein.fa, line 2: '.' is not a DNA letter; expected ACGT.* For a file of protein sequences set kind: protein",
    ),
    Bad("typo", CORPUS + " [{{language: dna, inputs: [{w}/typo.fa]}}]", "typo.fa, line 3: '!' is not a DNA letter"),
    Bad("binary", CORPUS + " [{{language: dna, inputs: [{w}/binary.fa]}}]", "binary.fa is not text; expected FASTA or FASTQ"),
    Bad("truncated", CORPUS + " [{{language: dna, inputs: [{w}/cut.fa.gz]}}]", "cut.fa.gz cannot be decompressed: .*; expected a whole file"),
    Bad("not gzip", CORPUS + " [{{language: dna, inputs: [{w}/not_gzip.fa.gz]}}]", "not_gzip.fa.gz cannot be decompressed"),
    Bad("jsonl without text", CORPUS + " [{{language: english, inputs: [{w}/text.jsonl]}}]", "line 2: no field `text` \\(found tekst\\)"),
    Bad("broken jsonl", CORPUS + " [{{language: english, inputs: [{w}/broken.jsonl]}}]", "broken.jsonl, line 2: .*; expected a JSON object"),
    Bad("latin-1", CORPUS + " [{{language: english, inputs: [{w}/latin.txt]}}]", "latin.txt is not UTF-8"),
    Bad("no such kind", CORPUS + " [{{language: protien, inputs: [{w}/good.fa]}}]", "kind 'protien' is unknown.* Did you mean 'protein'?"),
    Bad("negative limit", CORPUS + " [{{language: dna, inputs: [{w}/good.fa], max_letters: -1}}]", "max_letters of 'dna' is -1"),
    Bad("no inputs", CORPUS + " [{{language: dna}}]", "the source of 'dna' has no inputs"),
    Bad("negative fragment", "corpus" + OUT + CONFIG + " --cut.min_fragment -5", "cut.min_fragment is -5", ONE_SOURCE),
    Bad("held out more than all", "corpus" + OUT + CONFIG + " --split.valid_fraction 1.5", "split.valid_fraction is 1.5", ONE_SOURCE),
    Bad("nothing left", "corpus" + OUT + CONFIG + " --cut.min_fragment 5000 --cut.max_fragment 6000", "no training document is left", ONE_SOURCE),
    # output folders
    Bad("a user's folder", "corpus --output_dir {w}/mine" + CONFIG, "mine holds files and is not an earlier output", ONE_SOURCE),
    Bad("a file", "corpus --output_dir {w}/no_folder" + CONFIG, "no_folder is a file; expected a new or empty folder", ONE_SOURCE),
    Bad("below a file", "corpus --output_dir {w}/no_folder/out" + CONFIG, "out cannot be made: .*no_folder is a file", ONE_SOURCE),
    Bad("impossible", "corpus --output_dir /proc/nowhere/out" + CONFIG, "/proc/nowhere/out cannot be written", ONE_SOURCE),
    Bad("too long", "corpus --output_dir {w}/" + "x" * 300 + CONFIG, "cannot be written: File name too long", ONE_SOURCE),
    Bad("the input as output", "pack --corpus {w}/corpus --tokenizer {w}/tokenizer --output_dir {w}/corpus", "corpus is an output of `corpus`"),
    Bad("run below a file", "run --base {w}/base --output_dir {w}/no_folder/out" + CONFIG, "no_folder", "corpus:\n  " + ONE_SOURCE.replace("\n", "\n  ")),
    # vocab and pack
    Bad("no base tokenizer", "vocab --base {w}/gone --out {w}/new/out --steps [{{input: [{w}/good.fa]}}]", "gone does not exist; expected a tokenizer folder"),
    Bad("negative pieces", "vocab --base {w}/tokenizer --out {w}/new/out --steps [{{input: [{w}/good.fa], size: -3}}]", "size -3"),
    Bad("no corpus", "pack --corpus {w}/gone --tokenizer {w}/tokenizer" + OUT, "gone does not exist; expected the folder that `llama-gene corpus`"),
    Bad("corpus of another stage", "pack --corpus {w}/rows --tokenizer {w}/tokenizer" + OUT, "rows was written by `pack`; expected the output of `llama-gene corpus`"),
    Bad("no tokenizer", "pack --corpus {w}/corpus --tokenizer {w}/gone" + OUT, "gone does not exist; expected a tokenizer folder"),
    Bad("folder without tokenizer", "pack --corpus {w}/corpus --tokenizer {w}/mine" + OUT, "mine holds no tokenizer"),
    Bad("row_length 1", "pack --corpus {w}/corpus --tokenizer {w}/tokenizer --row_length 1" + OUT, "row_length is 1; expected at least 8 tokens"),
    Bad("negative row_length", "pack --corpus {w}/corpus --tokenizer {w}/tokenizer --row_length -4" + OUT, "row_length is -4"),
    Bad("no language", "pack --corpus {w}/corpus --tokenizer {w}/tokenizer --languages [dan]" + OUT, "has no language 'dan'.* Did you mean 'dna'?"),
    # pretrain
    Bad("retrained tokenizer", PRETRAIN + " --rows {w}/retrained_rows --base {w}/base", r"packed with vocabulary [0-9a-f]{16}; expected the tokenizer's [0-9a-f]{16}"),
    Bad("foreign base", PRETRAIN + " --rows {w}/rows --base {w}/foreign_base", r"the tokenizer \(261 ids\) does not extend the base's \(260 ids\)"),
    Bad("no such base", PRETRAIN + " --rows {w}/rows --base {w}/gone", "gone does not exist"),
    Bad("file as base", PRETRAIN + " --rows {w}/rows --base {w}/good.fa", "good.fa"),
    Bad("file as model", "evaluate --model {w}/good.fa --instructions {w}/instructions" + OUT, "good.fa is a file; expected a Hugging Face model folder"),
    Bad("adapter as base", PRETRAIN + " --rows {w}/rows --base {w}/adapter", "adapter has no config.json; expected a Hugging Face model folder"),
    Bad("base without weights", PRETRAIN + " --rows {w}/rows --base {w}/no_weights", "no_weights: .*; expected a causal language model"),
    Bad("base with cut weights", PRETRAIN + " --rows {w}/rows --base {w}/cut_weights", "cut_weights: .*; expected a causal language model"),
    Bad("no rows", PRETRAIN + " --rows {w}/gone --base {w}/base", "gone does not exist; expected the folder that `llama-gene pack` writes"),
    Bad("zero shares", PRETRAIN + " --rows {w}/rows --base {w}/base --shares {{dna: 0}}", "all shares are zero"),
    Bad("negative share", PRETRAIN + " --rows {w}/rows --base {w}/base --shares {{dna: -1}}", "the share of 'dna' is -1"),
    Bad("share of nothing", PRETRAIN + " --rows {w}/rows --base {w}/base --shares {{dan: 1}}", "shares names 'dan'.* Did you mean 'dna'?"),
    Bad("no such module", PRETRAIN + " --rows {w}/rows --base {w}/base --lora.target_modules [query]", "the model has no module 'query'"),
    Bad("negative batch", PRETRAIN + " --rows {w}/rows --base {w}/base --train.batch_size -2", "batch_size -2"),
    Bad("negative steps", "pretrain" + OUT + " --rows {w}/rows --base {w}/base --train.steps -2", "steps -2"),
    Bad("no deepspeed json", PRETRAIN + " --rows {w}/rows --base {w}/base --train.deepspeed {w}/gone.json", "gone.json does not exist; expected a DeepSpeed JSON"),
    Bad("odd width", PRETRAIN + " --rows {w}/rows --architecture {{width: 30}}", "width 30 is not divisible by heads 4"),
    # instruct
    Bad("no task", "instruct --tasks [{w}/gone.yaml]" + OUT, "gone.yaml does not exist"),
    Bad("no table", "instruct --tasks [{w}/no_table.yaml]" + OUT, "gone.csv does not exist"),
    Bad("no column", "instruct --tasks [{w}/no_column.yaml]" + OUT, "has no column 'lable'.* Did you mean 'label'?"),
    Bad("unknown task key", "instruct --tasks [{w}/unknown_key.yaml]" + OUT, "line 8: key 'labl_column' is not known.* Did you mean 'label_column'?"),
    # sft, evaluate, chat, export
    Bad("tampered adapter (sft)", "sft --model {w}/tampered --instructions {w}/instructions" + OUT, "tampered: the tokenizer has vocabulary [0-9a-f]{16}; expected [0-9a-f]{16}"),
    Bad("tampered adapter (evaluate)", "evaluate --model {w}/tampered --instructions {w}/instructions" + OUT, "tampered: the tokenizer has vocabulary"),
    Bad("tampered adapter (chat)", "chat --model {w}/tampered --question hello", "tampered: the tokenizer has vocabulary"),
    Bad("tampered adapter (export)", "export --model {w}/tampered" + OUT, "tampered: the tokenizer has vocabulary"),
    Bad("adapter without its base", "evaluate --model {w}/no_base --instructions {w}/instructions" + OUT, "gone does not exist; expected the base that the adapter"),
    Bad("cut adapter", "evaluate --model {w}/cut_adapter --instructions {w}/instructions" + OUT, "cut_adapter"),
    Bad("no model", "sft --model {w}/gone --instructions {w}/instructions" + OUT, "gone does not exist"),
    Bad("no instructions", "sft --model {w}/adapter --instructions {w}/gone" + OUT, "gone does not exist; expected the folder that `llama-gene instruct` writes"),
    Bad("too long", "sft --model {w}/adapter --instructions {w}/instructions --max_length 4000" + OUT, "max_length is 4000; expected at most 1024"),
    Bad("negative length", "sft --model {w}/adapter --instructions {w}/instructions --max_length -4" + OUT, "max_length"),
    Bad("no template", "sft --model {w}/adapter --instructions {w}/instructions --template alpacca" + OUT, "prompt template 'alpacca' is not known.* Did you mean 'alpaca'?"),
    Bad("no such task", "evaluate --model {w}/adapter --instructions {w}/instructions --tasks [cor]" + OUT, "there is no task 'cor'"),
    Bad("export of nothing", "export --model {w}/gone" + OUT, "gone does not exist; expected an adapter folder"),
    Bad("classify without task", "classify --model {w}/base --task {w}/gone.yaml" + OUT, "gone.yaml does not exist"),
    # a stage with nothing given
    *(Bad(f"{stage} with nothing", stage, "(is|are|given|set|unset).*; expected ") for stage in ("corpus", "vocab", "pack", "pretrain", "instruct", "sft", "classify", "evaluate", "chat", "export", "run")),
]  # fmt: skip


def listing(folder: Path) -> set[str]:
    """Return every path below a folder, hidden ones included, but for finished parts, which wait for a mended config or file."""
    places = {path.relative_to(folder) for path in folder.rglob("*")}
    kept = {place for place in places if ".out.work" in place.parts or (place / ".out.work") in places}
    return {str(place) for place in places - kept}


def error_lines(text: str) -> list[str]:
    """Return what stands on stderr beside the log's lines (they begin with the time) and bars of progress."""
    lines = (line for line in re.split(r"[\r\n]", text) if line.strip())
    return [line for line in lines if not re.match(r"\d\d:\d\d:\d\d ", line) and "%|" not in line]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No network, no data folder, and a current folder of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read when it was imported
    monkeypatch.delenv("LLAMA_GENE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    assert listing(tmp_path) == set()


def refuse(w: Path, command: str, yaml: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused; return its one line."""
    (w / "config.yaml").write_text(yaml.replace("{w}", str(w)))
    before = listing(w)
    arguments: list[str] = []
    for word in re.split(r" (?=--)", command):  # a value may hold blanks
        arguments += word.split(" ", 1)
    capsys.readouterr()
    code = cli.main([argument.replace("{w}", str(w)).replace("{{", "{").replace("}}", "}") for argument in arguments])
    errors = capsys.readouterr().err
    assert code == 2 and "Traceback" not in errors, errors
    assert listing(w) == before, "something was left behind"
    lines = error_lines(errors)
    assert len(lines) == 1, errors
    assert lines[0].startswith(f"llama-gene {arguments[0]}: ")
    return lines[0]


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_bad_input_is_one_line(w: Path, bad: Bad, capsys: pytest.CaptureFixture[str]) -> None:
    line = refuse(w, bad.command, bad.yaml, capsys)
    assert re.search(bad.message, line), line


@pytest.mark.parametrize("stage", STAGES_WITH_OUTPUT)
def test_no_stage_touches_a_users_folder(w: Path, stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refuse(w, f"{stage} --{'out' if stage == 'vocab' else 'output_dir'} {{w}}/mine", "", capsys)
    assert "mine holds files and is not an earlier output; expected a new or empty folder" in line


@pytest.mark.parametrize(
    "command",
    [
        "pretrain --rows {w}/rows --output_dir {w}/new/out --base",
        "vocab --steps [{{input: [{w}/good.fa]}}] --out {w}/new/out --base",
        "evaluate --instructions {w}/instructions --output_dir {w}/new/out --model",
    ],
)
def test_a_hub_model_out_of_reach_says_what_to_set(w: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refuse(w, command + " meta-llama/Llama-2-7b-hf", "", capsys)
    for word in ("'meta-llama/Llama-2-7b-hf'", "HF_TOKEN", "HF_HOME", "HF_ENDPOINT", "huggyllama/llama-7b"):
        assert word in line, line
