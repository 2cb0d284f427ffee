"""Adapters: fresh ones change nothing, saved ones come back as they were, and none meets a base or a tokenizer that is not its own."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError, MismatchError, MissingFileError
from llama_gene.models.adapters import attach_lora, load_model, save_adapter, trainable_share
from llama_gene.models.build import new_model
from llama_gene.models.embeddings import grow_embeddings
from llama_gene.models.settings import Architecture, EmbeddingInit, LoraSettings
from llama_gene.tokenization.tokenizer import load_tokenizer, vocabulary_fingerprint
from tests.conftest import Route
from tests.fixtures.tiny_vocabularies import spliced
from tests.tiny_models import save_model, tiny_gpt2, tiny_llama

PAPER = LoraSettings(rank=4)


def logits(model: Any, vocab_size: int) -> torch.Tensor:
    """Return a model's logits, at the same ids for the same vocabulary size."""
    ids = torch.randint(0, vocab_size, (3, 40), generator=torch.Generator().manual_seed(1))
    model.eval()
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits


def train_a_little(model: Any) -> None:
    """Move every trainable weight, as a few steps would."""
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize("kind", ["sentencepiece", "tiktoken"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_law_05_old_embedding_rows_are_bitwise_unchanged_and_a_fresh_adapter_changes_no_logit(kind: str, tied: bool) -> None:
    base, full = spliced(kind).base.tokenizer(), spliced(kind).full.tokenizer()
    model = tiny_llama(len(base), tied=tied)
    before = model.get_input_embeddings().weight.clone(), model.get_output_embeddings().weight.clone()
    of_base = logits(model, len(base))
    grow_embeddings(model, full, base)
    assert torch.equal(model.get_input_embeddings().weight[: len(base)], before[0])
    assert torch.equal(model.get_output_embeddings().weight[: len(base)], before[1])
    # The grown model gives base ids the same logits (the product has another width, so its last bits may differ).
    torch.testing.assert_close(logits(model, len(base))[..., : len(base)], of_base, rtol=0, atol=1e-5)
    grown = logits(model, len(full))
    adapter = attach_lora(model, PAPER)
    assert torch.equal(logits(adapter, len(full)), grown)
    train_a_little(adapter)
    assert not torch.equal(logits(adapter, len(full)), grown)


@pytest.mark.parametrize("kind", ["sentencepiece", "tiktoken"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("whole", [["embed_tokens", "lm_head"], []], ids=["paper", "lora_only"])
def test_law_05_a_saved_adapter_comes_back_with_equal_logits(tmp_path: Path, kind: str, tied: bool, whole: list[str]) -> None:
    base, full = spliced(kind).base.tokenizer(), spliced(kind).full.tokenizer()
    save_model(tiny_llama(len(base), tied=tied), base, tmp_path / "base")
    model, _ = load_model(tmp_path / "base", trainable=True)
    grow_embeddings(model, full, base)
    adapter = attach_lora(model, LoraSettings(rank=4, modules_to_save=whole))
    train_a_little(adapter)
    folder = tmp_path / "adapter"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # "Setting `save_embedding_layers` to `True`"
        save_adapter(adapter, folder)
    shutil.copytree(spliced(kind).folder, folder, dirs_exist_ok=True)
    facts = {"base": str(tmp_path / "base"), "base_vocabulary": vocabulary_fingerprint(base), "vocabulary": vocabulary_fingerprint(full)}
    runtime.write_manifest(folder, "pretrain", {}, **facts)
    reloaded, tokenizer = load_model(folder)
    assert len(tokenizer) == len(full) and not reloaded.training
    assert torch.equal(logits(reloaded, len(full)), logits(adapter, len(full)))
    assert is_tied(reloaded) == tied
    again, _ = load_model(folder, trainable=True)
    assert trainable_share(again) == trainable_share(adapter)
    merged = reloaded.merge_and_unload()
    assert merged.config.tie_word_embeddings == tied and is_tied(merged) == tied


@pytest.mark.parametrize("init", ["pieces", "quiet", "mean", "normal"])
def test_law_05_rows_that_an_adapter_leaves_as_they_started_are_made_again_the_same_way(tmp_path: Path, init: EmbeddingInit) -> None:
    base, full = spliced("tiktoken").base.tokenizer(), spliced("tiktoken").full.tokenizer()
    save_model(tiny_llama(len(base)), base, tmp_path / "base")
    model, _ = load_model(tmp_path / "base", trainable=True)
    grow_embeddings(model, full, base, init, seed=5)
    adapter = attach_lora(model, LoraSettings(rank=4, modules_to_save=[]))
    folder = tmp_path / "adapter"
    save_adapter(adapter, folder)
    shutil.copytree(spliced("tiktoken").folder, folder, dirs_exist_ok=True)
    facts = {"base": str(tmp_path / "base"), "base_vocabulary": vocabulary_fingerprint(base), "vocabulary": vocabulary_fingerprint(full)}
    runtime.write_manifest(folder, "pretrain", {}, **facts, embedding_init=init, embedding_seed=5)
    assert torch.equal(logits(load_model(folder)[0], len(full)), logits(adapter, len(full)))
    change_manifest(folder, embedding_init="zeros")
    with pytest.raises(ConfigError, match="embedding_init is 'zeros'"):
        load_model(folder)


def is_tied(model: Any) -> bool:
    """Tell whether the rows that are read and those that answer are one matrix."""
    rows, head = model.get_input_embeddings(), model.get_output_embeddings()
    rows, head = (part.modules_to_save["default"] if hasattr(part, "modules_to_save") else part for part in (rows, head))
    return rows.weight.data_ptr() == head.weight.data_ptr()


def test_the_papers_adapter_trains_lora_embedding_and_head() -> None:
    model = tiny_llama()
    rows = 2 * model.get_input_embeddings().weight.numel()
    sizes = [(module.in_features + module.out_features) * 4 for name, module in model.named_modules() if name.endswith("_proj")]
    adapter = attach_lora(model, PAPER)
    trainable, total = trainable_share(adapter)
    assert len(sizes) == 14 and trainable == rows + sum(sizes)
    assert total == sum(parameter.numel() for parameter in adapter.parameters())
    assert not adapter.base_model.model.model.embed_tokens.original_module.weight.requires_grad


def test_law_15_a_fresh_adapter_is_drawn_from_the_seed() -> None:
    def first(seed: int) -> torch.Tensor:
        torch.rand(seed + 3)  # what a process has drawn before must not matter
        adapter = attach_lora(tiny_llama(), PAPER, seed)
        return next(weight for name, weight in adapter.named_parameters() if "lora_A" in name)

    assert torch.equal(first(0), first(0)) and not torch.equal(first(0), first(1))


@pytest.mark.parametrize("init", ["gaussian", "pissa", "olora", "orthogonal"])
def test_every_start_leaves_the_logits_as_they_were(init: Any) -> None:
    model = tiny_llama()
    before = logits(model, 259)
    adapter = attach_lora(model, LoraSettings(rank=4, init=init, modules_to_save=[]))
    torch.testing.assert_close(logits(adapter, 259), before, rtol=0, atol=1e-4)  # PiSSA and OLoRA split the weight: rounding


def test_other_families_name_their_own_layers() -> None:
    with pytest.raises(ConfigError, match=r"no module 'q_proj'; expected modules such as .*c_attn.*lm_head.*wte"):
        attach_lora(tiny_gpt2(), PAPER)


@pytest.mark.parametrize("whole", [["wte", "lm_head"], ["wte"], ["lm_head"]])
def test_a_tied_gpt2_stays_tied_whichever_side_is_named(tmp_path: Path, whole: list[str]) -> None:
    model = tiny_gpt2()
    before = logits(model, 259)
    model.save_pretrained(tmp_path / "base")
    adapter = attach_lora(model, LoraSettings(rank=4, target_modules=["c_attn"], modules_to_save=whole))
    assert torch.equal(logits(adapter, 259), before)
    train_a_little(adapter)
    assert is_tied(adapter)
    save_adapter(adapter, tmp_path / "adapter")
    reloaded = peft.PeftModel.from_pretrained(tiny_gpt2(), str(tmp_path / "adapter"))
    assert torch.equal(logits(reloaded, 259), logits(adapter, 259))
    merged = reloaded.merge_and_unload()
    assert merged.config.tie_word_embeddings and is_tied(merged)


# --- meetings: what does not belong together is refused, with both sides named ---------------------------------------------------


@pytest.fixture
def copy(route: Route, tmp_path: Path) -> Path:
    """A copy of the adapter to tamper with."""
    return Path(shutil.copytree(route.adapter, tmp_path / "adapter"))


def test_an_adapter_with_another_tokenizer_is_refused(copy: Path, route: Route) -> None:
    shutil.copyfile(route.base / "tokenizer.json", copy / "tokenizer.json")
    expected = runtime.read_manifest(copy)["vocabulary"]
    with pytest.raises(MismatchError, match=rf"the tokenizer has vocabulary \w{{16}}; expected {expected}, with which the weights"):
        load_model(copy)


def test_an_adapter_on_a_base_with_another_vocabulary_is_refused(copy: Path, tmp_path: Path) -> None:
    other = spliced("sentencepiece").base.tokenizer()
    change_manifest(copy, base=str(save_model(tiny_llama(len(other)), other, tmp_path / "other")))
    with pytest.raises(MismatchError, match=r"has vocabulary \w{16}; expected \w{16}, on which the adapter"):
        load_model(copy)


def test_an_adapter_on_a_base_of_another_shape_is_refused(copy: Path, route: Route, tmp_path: Path) -> None:
    wide = Path(shutil.copytree(route.base, tmp_path / "wide"))
    shape = Architecture(width=64, layers=2, heads=4)
    new_model(shape, load_tokenizer(route.base)).save_pretrained(wide)
    change_manifest(copy, base=str(wide))
    with pytest.raises(MismatchError, match="does not fit"):
        load_model(copy)


def test_a_base_that_is_gone_or_never_named_is_said_so(copy: Path, tmp_path: Path) -> None:
    change_manifest(copy, base=str(tmp_path / "moved"))
    with pytest.raises(MissingFileError, match=r"moved does not exist; expected the base that the adapter .* was trained on"):
        load_model(copy)
    change_manifest(copy, base=None)
    with pytest.raises(InputError, match="the manifest names no base"):
        load_model(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"has no manifest\.json"):
        load_model(copy)


def test_a_whole_model_with_fewer_rows_than_ids_or_another_tokenizer_is_refused(route: Route, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(route.base, tmp_path / "model"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(route.tokenizer / name, folder / name)
    with pytest.raises(MismatchError, match="400 embedding rows for 592 ids"):
        load_model(folder)
    other = spliced("sentencepiece").base.tokenizer()
    other.backend_tokenizer.save(str(folder / "tokenizer.json"))
    save_model(tiny_llama(len(other)), other, folder)
    with pytest.raises(MismatchError, match="with which the weights were trained"):
        load_model(folder)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither adapter_config\.json nor config\.json"):
        load_model(tmp_path)
    with pytest.raises(MissingFileError):
        load_model(tmp_path / "nowhere")


def change_manifest(folder: Path, **changes: Any) -> None:
    """Rewrite a manifest's facts."""
    runtime.write_json(folder / runtime.MANIFEST_NAME, {**runtime.read_json(folder / runtime.MANIFEST_NAME), **changes})


def test_an_adapter_that_is_a_pickle_is_refused(copy: Path) -> None:
    (copy / "adapter_model.safetensors").unlink()
    (copy / "adapter_model.bin").write_bytes(b"\x80\x04 no pickle")
    with pytest.raises(InputError, match=r"holds its weights as a pickle \(adapter_model\.bin\), which can run code.*expected safetensors"):
        load_model(copy)
