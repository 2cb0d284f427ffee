"""What this machine lacks for a run, said in one line before any weight is loaded."""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch

from llama_gene import runtime
from llama_gene.errors import ConfigError, MachineError, MissingFileError
from llama_gene.models.settings import LoraSettings
from llama_gene.training.memory import zero_stage
from llama_gene.training.settings import TrainSettings


def check_machine(settings: TrainSettings) -> None:
    """Raise MachineError, MissingFileError or ConfigError for what cannot run here."""
    _check_devices(settings)
    _check_kernels(settings)
    _check_trackers(settings)
    if settings.deepspeed is not None:
        _check_deepspeed(settings)


def _check_devices(settings: TrainSettings) -> None:
    has_gpu = torch.cuda.is_available()
    here = runtime.local_world_size()
    if not has_gpu and here > runtime.num_cores():
        runtime.get_logger().warning("%s processes on %s cores: they will wait for each other", here, runtime.num_cores())
    if has_gpu and here > torch.cuda.device_count():
        raise MachineError(
            f"{here} processes were launched and this machine has {torch.cuda.device_count()} GPUs",
            "a process a GPU",
            f"Launch with --num_gpus {torch.cuda.device_count()}; train.accumulation x {here // torch.cuda.device_count()} keeps the step",
        )
    if settings.precision == "fp16":
        if not has_gpu:
            raise MachineError("precision is fp16 and there is no GPU", "a CUDA device", "Use precision bf16 or fp32")
        runtime.get_logger().warning("fp16 overflows where bf16 does not; use bf16 unless the GPU is older than Ampere")
    if settings.precision == "bf16" and has_gpu and not torch.cuda.is_bf16_supported():
        raise MachineError("precision is bf16 and this GPU cannot", "an Ampere GPU or a later one", "Use precision fp32 or fp16")


def _check_kernels(settings: TrainSettings) -> None:
    wanted = settings.attention
    if wanted in ("flash_attention_2", "flex_attention") and not torch.cuda.is_available():
        raise MachineError(f"train.attention is {wanted} and there is no GPU", "a CUDA device", "Use attention auto")
    if wanted == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise MachineError("train.attention is flash_attention_2 and flash-attn is not installed", "the package flash-attn", "Use auto")
    if wanted == "flash_attention_2" and settings.batch_size > 1:  # transformers looks for packed documents in single rows only
        raise ConfigError(
            f"train.attention is flash_attention_2 with batch_size {settings.batch_size}, where packed documents would see each other",
            "batch_size 1",
            f"Use batch_size 1 and accumulation {settings.accumulation * settings.batch_size}, or attention auto",
        )
    if wanted == "flash_attention_2" and settings.precision == "fp32":
        raise ConfigError("train.attention is flash_attention_2 and precision fp32", "bf16 or fp16", "Use precision bf16")


def _check_trackers(settings: TrainSettings) -> None:
    from transformers.integrations.integration_utils import get_available_reporting_integrations

    here = get_available_reporting_integrations()
    for name in settings.report_to:
        if name not in here:
            raise ConfigError(
                f"train.report_to names '{name}'", f"trackers that are installed: {', '.join(sorted(here)) or 'none'}", "Install it"
            )


def check_adapter(settings: TrainSettings, lora: LoraSettings | None) -> None:
    """Raise ConfigError for settings that do not go together; `lora` None: no adapter is trained."""
    if lora is None:
        if settings.loraplus_ratio:
            raise ConfigError(f"train.loraplus_ratio is {settings.loraplus_ratio:g} and there is no adapter", "0", "LoRA+ is for adapters")
        return
    stage, _ = zero_stage(settings)
    if lora.quantize != "none" and stage == 3:
        raise ConfigError(
            f"lora.quantize is {lora.quantize} under ZeRO-3, which cannot shard packed weights", "ZeRO-1 or 2", "Use zero2.json"
        )
    if lora.rows == "new" and stage == 3:
        raise ConfigError(
            "lora.rows is 'new' under ZeRO-3, which holds no whole embedding to put new rows into", "ZeRO-1 or 2", "Use zero2.json"
        )
    if lora.quantize != "none" and lora.target_parameters:
        raise ConfigError("lora.target_parameters with lora.quantize", "linear layers", "Use target_modules, or quantize none")


def _check_deepspeed(settings: TrainSettings) -> None:
    assert settings.deepspeed is not None
    if not settings.deepspeed.is_file():
        raise MissingFileError(settings.deepspeed, "a DeepSpeed JSON", "See ds_configs/")
    if importlib.util.find_spec("deepspeed") is None:
        raise MachineError("DeepSpeed is not installed", "Linux with the deepspeed package", "Unset train.deepspeed and use one process")
    if runtime.read_json(settings.deepspeed).get("optimizer") and (settings.loraplus_ratio or settings.optimizer != "adamw"):
        raise ConfigError(
            f"{settings.deepspeed} has an optimizer of its own, for which train.optimizer and loraplus_ratio do nothing",
            "one of the two",
            "Take the JSON's optimizer section out",
        )
    needs_compiler = runtime.world_size() > 1 or zero_stage(settings)[1]
    if not torch.cuda.is_available() and needs_compiler and shutil.which("c++") is None and shutil.which("g++") is None:
        raise MachineError("no C++ compiler is found", "g++, which DeepSpeed's CPU ops need", "Install g++ (Debian: apt-get install g++)")
    if torch.cuda.is_available() and zero_stage(settings)[1] and os.environ.get("CUDA_HOME") is None and shutil.which("nvcc") is None:
        raise MachineError("optimizer offload compiles a CUDA op and there is no nvcc", "the CUDA toolkit", "Install it, or use zero2.json")
