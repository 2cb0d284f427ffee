"""What a machine lacks, what settings do not go together, what memory a run takes, how fast it is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llama_gene import runtime
from llama_gene.errors import ConfigError, MachineError
from llama_gene.models.adapters import attach_lora
from llama_gene.models.settings import LoraSettings
from llama_gene.training import machine
from llama_gene.training.machine import check_adapter, check_machine
from llama_gene.training.memory import consumers, out_of_memory, smaller
from llama_gene.training.meter import Meter, flops_per_token
from llama_gene.training.settings import TrainSettings
from llama_gene.training.trainer import train
from tests import two_processes as jobs
from tests.conftest import tiny_training
from tests.tiny_models import tiny_llama

ZERO = {stage: Path(__file__).parents[1] / "ds_configs" / f"zero{stage}.json" for stage in (1, 2, 3)}


@pytest.mark.parametrize(
    ("train_changes", "lora_changes", "message"),
    [
        ({"deepspeed": ZERO[3]}, {"quantize": "nf4"}, "lora.quantize is nf4 under ZeRO-3"),
        ({"deepspeed": ZERO[3]}, {"rows": "new"}, "lora.rows is 'new' under ZeRO-3"),
        ({}, {"quantize": "int8", "target_parameters": ["experts.down_proj"]}, "lora.target_parameters with lora.quantize"),
        ({"loraplus_ratio": 16.0}, None, "train.loraplus_ratio is 16 and there is no adapter"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(train_changes: dict[str, Any], lora_changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_adapter(TrainSettings(**train_changes), None if lora_changes is None else LoraSettings(**lora_changes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without a GPU says")
@pytest.mark.parametrize("attention", ["flash_attention_2", "flex_attention"])
def test_kernels_that_need_a_gpu_are_refused_without_one(attention: Any) -> None:
    with pytest.raises(MachineError, match=f"train.attention is {attention} and there is no GPU"):
        check_machine(TrainSettings(attention=attention))


def test_a_launch_for_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE"):  # of torchrun, of DeepSpeed's launcher
        with monkeypatch.context() as launched:
            launched.setenv("WORLD_SIZE", "8")
            launched.setenv(name, "8")
            with pytest.raises(
                MachineError, match="8 processes were launched and this machine has 2 GPUs.*--num_gpus 2; .*accumulation x 4"
            ):
                check_machine(TrainSettings())
            launched.setenv(name, "2")  # 4 machines
            check_machine(TrainSettings())


def test_flash_attention_is_refused_where_packed_documents_would_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    found = machine.importlib.util.find_spec
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name, *rest: object() if name == "flash_attn" else found(name, *rest))
    with pytest.raises(
        ConfigError, match="with batch_size 8, where packed documents would see each other.*batch_size 1 and accumulation 16"
    ):
        check_machine(TrainSettings(attention="flash_attention_2", batch_size=8, accumulation=2, report_to=[]))
    check_machine(TrainSettings(attention="flash_attention_2", batch_size=1, report_to=[]))


def test_a_missing_compiler_is_said_before_deepspeed_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    if not torch.cuda.is_available():
        with pytest.raises(MachineError, match=r"no C\+\+ compiler is found; expected g\+\+"):
            check_machine(TrainSettings(deepspeed=ZERO[2]))


def test_a_tracker_that_is_not_installed_is_refused() -> None:
    with pytest.raises(ConfigError, match="train.report_to names 'wandbb'; expected trackers that are installed: .*tensorboard"):
        check_machine(TrainSettings(report_to=["tensorboard", "wandbb"]))


# --- memory ----------------------------------------------------------------------------------------------------------------------


def test_the_next_config_makes_the_same_step_until_it_must_not() -> None:
    settings = TrainSettings(batch_size=32, accumulation=8)
    assert smaller(settings).startswith("train.batch_size 16 and train.accumulation 16 (the same step)")
    one = replace(settings, batch_size=1)
    assert smaller(one) == "train.gradient_checkpointing true"
    assert smaller(replace(settings, batch_size=9)) == "train.batch_size 3 and train.accumulation 24 (the same step)"
    assert "zero2.json" in smaller(replace(one, gradient_checkpointing=True))
    assert "zero2_offload" in smaller(replace(one, gradient_checkpointing=True, deepspeed=ZERO[2]))


def test_memory_is_added_up_by_what_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = attach_lora(tiny_llama(), LoraSettings(rank=4))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    found = consumers(model, TrainSettings(precision="fp32", batch_size=2), 64)
    assert (found["frozen weights"], found["trained weights"], found["optimizer states"]) == (4 * frozen, 4 * trained, 8 * trained)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    halved = consumers(model, TrainSettings(precision="fp32", batch_size=2, deepspeed=ZERO[2]), 64)
    assert halved["optimizer states"] == 4 * trained and halved["gradients"] == 2 * trained
    assert consumers(model, TrainSettings(deepspeed=ZERO[3]), 64)["frozen weights"] == 2 * frozen
    table = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, torch.nn.Embedding) and layer.weight.requires_grad)
    assert 0 < table < trained
    monkeypatch.setenv("WORLD_SIZE", "1")
    in_8_bits = consumers(model, TrainSettings(precision="fp32", optimizer="adamw_8bit"), 64)
    assert in_8_bits["optimizer states"] == 8 * table + 2 * (trained - table)  # transformers keeps embeddings in 32 bits
    assert out_of_memory(RuntimeError("shapes do not match"), model, TrainSettings(), 64) is None


def test_out_of_memory_names_the_five_largest_consumers_and_the_next_config(tmp_path: Path) -> None:
    class Greedy(list):  # type: ignore[type-arg]
        def __getitem__(self, number: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    model = attach_lora(tiny_llama(), LoraSettings(rank=4))
    with pytest.raises(MachineError) as caught:
        train(model, {"all": Greedy(jobs.uneven_rows())}, {"all": 1.0}, 1, tiny_training(2), tmp_path / "work", "key")
    text = str(caught.value)
    assert text.startswith("memory ran out (CUDA out of memory. Tried to allocate 20.00 GiB.)") and text.count(" GB") == 5
    assert "Next to try: train.batch_size 2 and train.accumulation 2 (the same step)" in text


# --- speed -----------------------------------------------------------------------------------------------------------------------


def test_flops_of_a_token_of_7b_with_91598_rows() -> None:
    shape = LlamaConfig(
        vocab_size=91_598, hidden_size=4096, intermediate_size=11_008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32
    )
    with torch.device("meta"):
        model = attach_lora(LlamaForCausalLM(shape), LoraSettings())
    assert flops_per_token(model, 512) == pytest.approx(28.7e9, rel=0.005)


def test_speed_is_that_of_the_tokens_since_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 102.0, 105.0, 109.0, 110.0])
    monkeypatch.setattr("llama_gene.training.meter.time.monotonic", lambda: next(clock))
    meter = Meter(tiny_llama(), np.array([10, 30, 60, 100]), 64)  # 100
    meter.start(0)  # 102
    assert meter.read(2)["tokens_per_second"] == 10.0  # 30 tokens in 3 s
    assert meter.read(3)["tokens_per_second"] == 7.5
    assert meter.read(3) == {}
    assert not math.isnan(flops_per_token(tiny_llama(), 64)) and runtime.world_size() == 1
