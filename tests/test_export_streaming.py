"""Rows merged one after the other are what PEFT merges whole, for every kind of adapter that this project trains, and some others."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from llama_gene.errors import ConfigError, InputError, MismatchError
from llama_gene.export import streaming
from llama_gene.export.lazy import lazy_adapter, lazy_model
from llama_gene.export.plan import MergePlan, NotStreamable, empty_model, plan_merge
from llama_gene.export.shards import write_shards
from llama_gene.export.streaming import MergedTensors
from llama_gene.export.tensors import TensorFolder
from tests.tiny_models import tiny_gpt2, tiny_llama

IDS = torch.tensor([[0, *range(5, 255, 6)]])


def adapted(folder: Path, model: Any, num_ids: int = 259, embedding_layers: bool = False, **settings: Any) -> Any:
    """Write a base and an adapter of random weights on it, grown to `num_ids`; return PEFT's model."""
    model.save_pretrained(folder / "base")
    if num_ids != model.config.vocab_size:
        model.resize_token_embeddings(num_ids, mean_resizing=False)
    torch.manual_seed(3)
    values = {"r": 4, "lora_alpha": 8, "init_lora_weights": False, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    adapter = peft.get_peft_model(model, peft.LoraConfig(**{**values, **settings}))
    with torch.no_grad():
        for parameter in adapter.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    adapter.save_pretrained(folder / "adapter", save_embedding_layers=embedding_layers)
    return adapter.eval()


def planned(folder: Path, num_ids: int = 259) -> tuple[MergePlan, Any, Any]:
    """Return plan, base config and adapter settings of what `adapted` wrote."""
    base, config = TensorFolder(folder / "base"), AutoConfig.from_pretrained(folder / "base")
    settings = peft.PeftConfig.from_pretrained(str(folder / "adapter"))
    settings.inference_mode = True
    tensors = TensorFolder(folder / "adapter", "adapter_model*.safetensors")
    return plan_merge(base, empty_model(config), [(settings, tensors)], num_ids, [259]), config, settings


LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KINDS: dict[str, dict[str, Any]] = {
    "lora on grouped-query attention": {"target_modules": LINEAR},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True, "target_modules": LINEAR},
    "patterns": {"rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"down_proj": 3}},
    "patterns with rslora": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 5}, "use_rslora": True},
    "embedding and head whole": {"modules_to_save": ["embed_tokens", "lm_head"], "num_ids": 300},
    "a norm whole": {"modules_to_save": ["norm"]},
    "new rows": {"trainable_token_indices": {"embed_tokens": list(range(259, 300)), "lm_head": list(range(259, 300))}, "num_ids": 300},
    "scattered rows": {"trainable_token_indices": {"embed_tokens": [7, 3, 200], "lm_head": [5]}},
    "lora of the embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "lora of the head": {"target_modules": ["lm_head"]},
    "tied, both copies as one": {"tied": True, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True, "num_ids": 300},
    "tied, new rows": {"tied": True, "trainable_token_indices": list(range(259, 300)), "num_ids": 300},
}


@pytest.mark.parametrize("kind", KINDS)
def test_merged_rows_are_those_of_peft_and_a_model_read_layer_by_layer_says_the_same(tmp_path: Path, kind: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(streaming, "CHUNK", 32 * 7)  # seven rows at a time: every tensor comes in several pieces, the last one shorter
    settings = dict(KINDS[kind])
    tied, num_ids = settings.pop("tied", False), settings.pop("num_ids", 259)
    model = adapted(tmp_path, tiny_llama(tied=tied), num_ids, **settings)
    plan, config, read_settings = planned(tmp_path, num_ids)
    merged = MergedTensors(plan)
    config.vocab_size = num_ids
    with torch.inference_mode():
        expected = model(input_ids=IDS, use_cache=False).logits
        base = TensorFolder(tmp_path / "base")

        def read_base(name: str) -> torch.Tensor:
            tensor = base.read(name if name in base else plan.embedding)
            grown = name in (plan.embedding, plan.head) and len(tensor) < num_ids
            return torch.cat([tensor, torch.zeros(num_ids - len(tensor), 32)]) if grown else tensor

        lazy = lazy_adapter(config, read_base, read_settings, plan.adapters[0], plan.embedding if tied else "")
        assert torch.allclose(lazy(input_ids=IDS, use_cache=False).logits, expected, atol=1e-5)
        config.tie_word_embeddings = plan.tied
        assert torch.allclose(lazy_model(config, merged.read)(input_ids=IDS, use_cache=False).logits, expected, atol=2e-5)
    assert plan.tied == tied
    whole = {name: tensor for name, tensor in model.merge_and_unload().state_dict().items() if name in plan.recipes}
    assert whole.keys() == plan.recipes.keys()
    for name, tensor in whole.items():
        assert torch.allclose(merged.read(name), tensor, atol=2e-6), name
        if not plan.recipes[name].steps:
            assert torch.equal(merged.read(name), tensor), name


def test_the_head_of_a_tied_model_that_was_adapted_alone_is_written_for_itself(tmp_path: Path) -> None:
    for number, settings in enumerate(({"target_modules": ["lm_head"]}, {"modules_to_save": ["embed_tokens"]})):
        folder = tmp_path / str(number)
        model = adapted(folder, tiny_llama(tied=True), **settings)
        with torch.inference_mode():
            expected = model(input_ids=IDS, use_cache=False).logits
        plan, config, _ = planned(folder)
        assert not plan.tied and plan.head in plan.recipes
        config.tie_word_embeddings = False
        with torch.inference_mode():
            found = lazy_model(config, MergedTensors(plan).read)(input_ids=IDS, use_cache=False).logits
        assert torch.allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("dora", [False, True])
def test_layers_that_keep_inputs_first_are_merged_transposed(tmp_path: Path, dora: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(streaming, "CHUNK", 96 * 5)
    names = ["c_attn", "c_proj", "c_fc"]  # c_attn is (32, 96), attn.c_proj is square
    model = adapted(tmp_path, tiny_gpt2(), target_modules=names, fan_in_fan_out=True, use_dora=dora)
    merged = MergedTensors(planned(tmp_path)[0])
    for name, tensor in model.merge_and_unload().state_dict().items():
        if name in merged.plan.recipes:
            assert torch.allclose(merged.read(name), tensor, atol=2e-6), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_weights_are_rounded_once_and_untouched_ones_keep_their_bits(tmp_path: Path, precision: Any) -> None:
    adapted(tmp_path, tiny_llama().bfloat16())
    merged = MergedTensors(planned(tmp_path)[0])
    (tmp_path / "out").mkdir()
    hashes = streaming.write_merged(merged, tmp_path / "out", precision, "50KB")
    written = TensorFolder(tmp_path / "out")
    base = load_file(tmp_path / "base" / "model.safetensors")
    changed = "model.layers.1.self_attn.q_proj.weight"
    assert torch.equal(written.read(changed), merged.read(changed).to(getattr(torch, precision)))
    assert not torch.equal(written.read(changed).float(), base[changed].float())
    kept = "model.layers.1.self_attn.k_proj.weight"
    assert torch.equal(written.read(kept), base[kept].to(getattr(torch, precision)))
    assert len(hashes) > 1 and set(written) == set(base)
    for name, digest in hashes.items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest


def test_files_are_those_that_the_library_reads_whatever_the_element_types(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(7, dtype=torch.int8), "b": torch.randn(5, 3).bfloat16(), "c": torch.arange(4), "d": torch.tensor(2.5)}
    layout = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    write_shards(tmp_path, layout, lambda name: tensors[name].split(2) if tensors[name].ndim else [tensors[name]])
    read = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items()) and read.keys() == tensors.keys()
    with pytest.raises(ConfigError, match="max_shard_size is 'much'"):
        write_shards(tmp_path, layout, lambda name: [tensors[name]], "much")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"init_lora_weights": "pissa"}, "started with pissa, which changes the base"),
        ({"bias": "lora_only"}, "has bias lora_only"),
        ({"lora_bias": True}, "has lora_bias True"),
    ],
)
def test_what_the_formulas_do_not_cover_is_left_to_peft_with_a_reason(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    adapted(tmp_path, tiny_llama(), **settings)
    with pytest.raises(NotStreamable, match=reason):
        planned(tmp_path)


def test_new_rows_that_nobody_trained_are_left_to_peft(tmp_path: Path) -> None:
    adapted(tmp_path, tiny_llama(), num_ids=300)
    with pytest.raises(NotStreamable, match="did not train the rows of new ids"):
        planned(tmp_path, 300)


def test_an_adapter_of_other_shapes_is_a_mismatch(tmp_path: Path) -> None:
    adapted(tmp_path, tiny_llama())
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = {name: tensor[:-1].contiguous() if "q_proj.lora_B" in name else tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path)
    with pytest.raises(MismatchError, match=r"does not fit: model\.layers\.\d\.self_attn\.q_proj is \(32, 32\), B \(31, 4\)"):
        planned(tmp_path)


def test_half_a_pair_is_refused(tmp_path: Path) -> None:
    adapted(tmp_path, tiny_llama())
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if "layers.1.self_attn.q_proj.lora_A" not in name}, path)
    with pytest.raises(InputError, match=r"holds .*q_proj\.lora_B\.weight without"):
        planned(tmp_path)


def test_buffers_of_older_versions_are_left_out_and_named(tmp_path: Path) -> None:
    adapted(tmp_path, tiny_llama())
    path = tmp_path / "base" / "model.safetensors"
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    save_file({**load_file(path), name: torch.ones(4)}, path, metadata={"format": "pt"})
    assert planned(tmp_path)[0].left_out == (name,)


def test_a_model_read_layer_by_layer_holds_no_weight_afterwards(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    tensors = TensorFolder(tmp_path)
    model = lazy_model(AutoConfig.from_pretrained(tmp_path), tensors.read)
    with torch.inference_mode():
        found = model(input_ids=IDS, use_cache=False).logits
        assert torch.equal(found, AutoModelForCausalLM.from_pretrained(tmp_path)(input_ids=IDS, use_cache=False).logits)
    assert all(parameter.is_meta for parameter in model.parameters())
