"""Every shipped config is parsed by its stage, fits its neighbours, and trains what it says."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from llama_gene.cli import STAGES
from llama_gene.config import parse
from llama_gene.data.paper_tables import read_paper_table
from llama_gene.data.tasks import read_task
from llama_gene.recipes.vocab import _check as check_vocab

ROOT = Path(__file__).resolve().parents[1]
YAMLS = sorted(path.relative_to(ROOT) for folder in ("launch/configs", "vocab") for path in (ROOT / folder).rglob("*.yaml"))
JSONS = sorted((ROOT / "ds_configs").glob("*.json"))
SERVERS = ["llama2_7b", "llama3_8b"]
AUTO = {"train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"}


def stage_of(path: Path) -> str:
    """Return the stage that a config is for: by its name (pretrain.yaml, vocab_unified.yaml), or by its folder (`task`, `table`)."""
    if path.parts[0] == "vocab":
        return "vocab"
    first = path.stem.split("_")[0]
    if path.parent.name == "tables":
        return "table"
    return "task" if path.parent.name == "tasks" or first == "task" else first


def parsed(path: Path) -> Any:
    """Return a config as its stage reads it."""
    stage = stage_of(path)
    return parse(stage, importlib.import_module(f"llama_gene.recipes.{stage}").Config, ["--config", str(ROOT / path)])


def named_files(value: Any) -> list[str]:
    """Return every value that names a file or folder of this repository."""
    if isinstance(value, dict):
        return [name for item in value.values() for name in named_files(item)]
    if isinstance(value, list):
        return [name for item in value for name in named_files(item)]
    return [value] if isinstance(value, str) and value.startswith(("launch/", "ds_configs/", "vocab/")) else []


def outputs_and_inputs(folder: str) -> tuple[set[str], set[str]]:
    """Return what the stages of a folder of configs write, and what they read of it."""
    configs = [parsed(path) for path in YAMLS if path.parent.name == folder and stage_of(path) != "run"]
    written = {str(getattr(config, "output_dir", None) or config.out) for config in configs}
    keys = ("rows", "corpus", "tokenizer", "model", "instructions", "replay", "base_inputs")
    values = [getattr(config, key, None) for config in configs for key in keys]
    names = [str(name) for value in values if value for name in (value if isinstance(value, list) else [value])]
    return written, {name.rsplit("/", 1)[0] if name.endswith((".train", ".valid")) else name for name in names}


@pytest.mark.parametrize("path", YAMLS, ids=str)
def test_every_yaml_is_parsed_by_its_stage(path: Path) -> None:
    stage = stage_of(path)
    if stage == "task":
        assert read_task(ROOT / path).title
        return
    if stage == "table":
        assert read_paper_table(ROOT / path).rows
        return
    assert stage in STAGES
    config = parsed(path)
    if stage == "vocab":
        check_vocab(config)
    for name in named_files(yaml.safe_load((ROOT / path).read_text())):
        assert (ROOT / name).exists(), f"{path} names {name}"


def test_there_is_a_config_for_each_route() -> None:
    names = {str(path.relative_to("launch/configs")) for path in YAMLS if path.parts[0] == "launch"}
    assert names >= {f"{folder}/{stage}.yaml" for folder in SERVERS for stage in ("pretrain", "sft", "run")}
    assert names >= {f"dnahlm/{name}.yaml" for name in ("corpus", "vocab_unified", "pack", "pretrain", "classify", "instruct", "sft")}
    assert names >= {"demo/run.yaml", "real_small/run.yaml"}


@pytest.mark.parametrize("folder", SERVERS)
def test_a_stage_alone_has_the_values_of_the_run(folder: str) -> None:
    run = parsed(Path(f"launch/configs/{folder}/run.yaml"))
    assert run.processes == 8 and run.pack.row_length == 512 and run.sft.max_length == 512
    assert [(step.kind, step.size) for step in run.vocab.steps] == [("dna", 30080), ("protein", 30080)]
    paths = {"rows", "base", "model", "instructions", "replay", "output_dir"}
    for stage in ("pretrain", "sft"):
        alone = asdict(parsed(Path(f"launch/configs/{folder}/{stage}.yaml")))
        assert {key: value for key, value in asdict(getattr(run, stage)).items() if key not in paths} == {
            key: value for key, value in alone.items() if key not in paths
        }
        assert str(alone["output_dir"]).startswith(f"{run.output_dir}/")
    assert parsed(Path(f"launch/configs/{folder}/pretrain.yaml")).base == run.base


@pytest.mark.parametrize("folder", SERVERS)
def test_a_step_of_the_servers_has_a_million_tokens(folder: str) -> None:
    train = parsed(Path(f"launch/configs/{folder}/pretrain.yaml")).train
    assert train.batch_size * train.accumulation * 8 * 512 == 2**20
    assert (train.learning_rate, train.precision, train.deepspeed) == (2e-4, "bf16", Path("ds_configs/zero2.json"))


def test_dnahlm_stages_read_what_the_ones_before_them_write() -> None:
    written, read = outputs_and_inputs("dnahlm")
    assert len(written) == 7 and read <= written


@pytest.mark.parametrize("path", JSONS, ids=lambda path: path.name)
def test_deepspeed_jsons_leave_to_the_yaml_what_the_yaml_decides(path: Path) -> None:
    values = json.loads(path.read_text())
    assert {key for key in AUTO if values[key] == "auto"} == AUTO
    assert values["bf16"]["enabled"] == values["fp16"]["enabled"] == "auto"
    assert not {"optimizer", "scheduler", "lr"} & set(values)
    zero = values["zero_optimization"]
    assert zero["stage"] == int(path.stem[4])
    assert ("offload_optimizer" in zero) == path.stem.endswith("_offload")
    assert ("offload_param" in zero) == (path.stem == "zero3_offload")
    if zero["stage"] == 3:
        assert zero["stage3_gather_16bit_weights_on_model_save"] is True  # else the saved weights are empty
        assert {zero[key] for key in zero if key.endswith(("bucket_size", "threshold"))} == {"auto"}
