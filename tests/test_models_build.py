"""Bases: made from scratch with a seed, loaded from a folder or the hub, or one line that says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from llama_gene.errors import ConfigError, InputError, MachineError, MissingFileError
from llama_gene.models.build import frozen_precision, load_base, new_model
from llama_gene.models.settings import Architecture, Precision
from tests.fixtures.tiny_tokenizers import sentencepiece_like, tiktoken_like
from tests.tiny_models import save_model, tiny_llama, tiny_tokenizer

SMALL = {"width": 32, "layers": 2, "heads": 4, "max_length": 64}


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_new_model_has_the_shape_that_was_asked_for(family: str, tied: bool) -> None:
    tokenizer = sentencepiece_like()
    model = new_model(Architecture(family=family, tie_embeddings=tied, **SMALL), tokenizer)  # type: ignore[arg-type]
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.max_position_embeddings) == (32, 2, 4, 64)
    assert config.vocab_size == len(tokenizer) == model.get_input_embeddings().weight.shape[0]
    assert (config.bos_token_id, config.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied == config.tie_word_embeddings
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_feed_forward_layer_has_its_familys_size_or_the_one_asked_for() -> None:
    tokenizer = tiktoken_like()
    assert new_model(Architecture(width=48, layers=1, heads=4), tokenizer).config.intermediate_size == 128  # 8/3 of 48
    assert new_model(Architecture(width=104, layers=1, heads=4), tokenizer).config.intermediate_size == 288  # 277.3, rounded up to 32
    assert new_model(Architecture("gpt2", width=48, layers=1, heads=4), tokenizer).transformer.h[0].mlp.c_fc.nf == 192
    assert new_model(Architecture(width=48, layers=1, heads=4, feed_forward=40), tokenizer).config.intermediate_size == 40


def test_law_15_the_same_seed_makes_the_same_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)
        return torch.cat([parameter.flatten() for parameter in new_model(Architecture(**SMALL), tiktoken_like(), seed).parameters()])

    assert torch.equal(weights(0), weights(0)) and not torch.equal(weights(0), weights(1))


def test_a_shape_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="width 30 is not divisible by heads 4"):
        new_model(Architecture(width=30, heads=4), tiktoken_like())
    with pytest.raises(ConfigError, match="width 100 gives each of 4 heads 25 numbers; expected an even number"):
        new_model(Architecture(width=100, heads=4), tiktoken_like())
    with pytest.raises(ConfigError, match="heads 0; expected sizes of at least 1"):
        new_model(Architecture(heads=0), tiktoken_like())
    assert new_model(Architecture("gpt2", width=100, layers=1, heads=4), tiktoken_like()).config.n_embd == 100


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_folder_is_loaded_in_the_precision_asked_for(tmp_path: Path, precision: Precision) -> None:
    folder = save_model(tiny_llama(), tiny_tokenizer(), tmp_path / "base")
    model = load_base(folder, precision)
    assert model.dtype == getattr(torch, precision)
    assert torch.equal(model.lm_head.weight, tiny_llama().lm_head.weight.to(model.dtype))


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tiny_llama(), tiny_tokenizer(), tmp_path / "base")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_base("~/base").config.vocab_size == 259


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "models/of/mine"])
def test_a_path_that_does_not_exist_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(MissingFileError, match="does not exist; expected a Hugging Face model folder or a hub id"):
        load_base(name)


def test_a_folder_that_is_no_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_base(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "vocab_size": 9}')
    with pytest.raises(InputError, match="expected a causal language model"):
        load_base(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "no_such_family"}')
    with pytest.raises(InputError, match=r"no_such_family.*expected a causal language model"):
        load_base(tmp_path)


def test_a_hub_model_out_of_reach_is_one_line_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("You are trying to access a gated repo.\nMake sure to have access to it at https://...")

    monkeypatch.setattr("llama_gene.models.build.AutoModelForCausalLM.from_pretrained", refuse)
    with pytest.raises(MachineError) as caught:
        load_base("meta-llama/Llama-2-7b-hf")
    message = str(caught.value)
    assert (
        "'meta-llama/Llama-2-7b-hf' is no folder here and could not be loaded from the hub" in message
        and "gated repo" in message
        and "\n" not in message
    )
    assert all(word in message for word in ("HF_TOKEN", "HF_HOME", "HF_ENDPOINT", "huggyllama/llama-7b"))


@pytest.mark.parametrize(
    ("stored", "training", "expected"),
    [
        (torch.float32, "bf16", "float32"), (torch.bfloat16, "bf16", "bfloat16"), (torch.float16, "bf16", "bfloat16"),
        (torch.float16, "fp16", "float16"), (torch.bfloat16, "fp32", "float32"),
    ],
)  # fmt: skip
def test_frozen_weights_are_not_widened_for_16_bit_training(tmp_path: Path, stored: Any, training: Any, expected: str) -> None:
    save_model(tiny_llama().to(stored), tiny_tokenizer(), tmp_path / "base")
    assert frozen_precision(str(tmp_path / "base"), training) == expected


def test_a_base_of_the_hub_is_not_narrowed_either(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def config(name: str) -> Any:
        asked.append(name)
        return LlamaConfig(dtype="float32" if "wide" in name else "bfloat16")

    monkeypatch.setattr("llama_gene.models.build.AutoConfig.from_pretrained", config)
    assert [frozen_precision(f"someone/{name}", "bf16") for name in ("wide", "narrow")] == ["float32", "bfloat16"]
    assert asked == ["someone/wide", "someone/narrow"]


def test_weights_that_are_a_pickle_are_never_opened(tmp_path: Path) -> None:
    folder = save_model(tiny_llama(), tiny_tokenizer(), tmp_path / "base")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04 no pickle")
    assert load_base(folder).config.vocab_size == 259  # beside safetensors it is not read
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds its weights as a pickle \(pytorch_model\.bin\), which can run code.*expected safetensors"):
        load_base(folder)
