"""Law 6: what is written says what the adapter says, and a folder that was changed is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llama_gene.errors import InputError, MismatchError
from llama_gene.export.gate import PROBES, compare_written, logit_gap, probe_logits
from llama_gene.export.manifest import seal, verify_export
from llama_gene.export.memory import merge_adapter, write_model
from llama_gene.models.adapters import load_model
from llama_gene.recipes.export import Config, run
from tests.tiny_models import save_adapter, save_model, tiny_llama, tiny_tokenizer


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that no test may change."""
    folder = tmp_path_factory.mktemp("export")
    return run(Config(model=save_adapter(folder), output_dir=folder / "model", fresh_process=False))


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """A copy of the export to tamper with."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in exported.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_law_06_merged_logits_equal_unmerged_and_a_tampered_export_is_refused(tmp_path: Path, tied: bool) -> None:
    adapter_dir = save_adapter(tmp_path, tied)
    output = run(Config(model=adapter_dir, output_dir=tmp_path / "model", fresh_process=False))
    adapter, tokenizer = load_model(adapter_dir)
    written = AutoModelForCausalLM.from_pretrained(output).eval()  # as a stranger loads it
    assert [type(written).__name__, written.config.vocab_size, written.config.tie_word_embeddings] == ["LlamaForCausalLM", 261, tied]
    assert logit_gap(probe_logits(adapter, tokenizer), probe_logits(written, tokenizer)) < 1e-5
    base = load_model(tmp_path / "base")[0]
    base.resize_token_embeddings(261, mean_resizing=False)
    assert logit_gap(probe_logits(adapter, tokenizer), probe_logits(base, tokenizer)) > 0.01  # the adapter does change the logits
    for name in sorted(path.name for path in output.iterdir()):
        whole = (output / name).read_bytes()
        verify_export(output)
        changed = bytearray(whole)
        changed[-3] ^= 1
        (output / name).write_bytes(changed)
        with pytest.raises((MismatchError, InputError)):
            verify_export(output)
        (output / name).unlink()
        with pytest.raises((MismatchError, InputError)):
            verify_export(output)
        (output / name).write_bytes(whole)
    verify_export(output)


@pytest.mark.parametrize("how", ["streaming", "memory"])
def test_law_06_a_merge_that_changes_logits_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Any) -> None:
    adapter_dir = save_adapter(tmp_path)
    if how == "memory":
        from peft import PeftModel

        monkeypatch.setattr(PeftModel, "merge_and_unload", lambda self: self.unload(), raising=False)  # forgets the low-rank update
    else:
        from llama_gene.export.streaming import _Step

        monkeypatch.setattr(_Step, "apply", lambda self, rows, start, stop: rows)
    for compare in ("whole", "layers") if how == "streaming" else ("whole",):
        with pytest.raises(MismatchError, match="merged and unmerged logits differ"):
            run(Config(model=adapter_dir, output_dir=tmp_path / "model", merge=how, compare=compare, fresh_process=False))
        assert not (tmp_path / "model").exists()


def test_law_06_a_written_folder_that_differs_is_refused(tmp_path: Path) -> None:
    adapter_dir = save_adapter(tmp_path)
    model, tokenizer = load_model(adapter_dir)
    merged, _, _, expected = merge_adapter(model, tokenizer)
    with torch.no_grad():
        merged.model.norm.weight[3] += 0.5
    write_model(merged, tokenizer, adapter_dir, tmp_path / "model", "float32")
    with pytest.raises(MismatchError, match="logits of the written folder differ"):
        compare_written(tmp_path / "model", tokenizer, expected, tolerance=1e-4, fresh=False)


def test_a_nan_in_the_written_weights_is_a_gap(tmp_path: Path) -> None:
    good = [torch.ones(2, 3)]
    bad = [torch.tensor([[1.0, 1.0, float("nan")], [1.0, 1.0, 1.0]])]
    assert not logit_gap(good, bad) <= 1e9


def test_bfloat16_is_written_within_its_own_tolerance_and_not_within_that_of_float32(tmp_path: Path) -> None:
    adapter_dir = save_adapter(tmp_path)
    output = run(Config(model=adapter_dir, output_dir=tmp_path / "model", dtype="bfloat16", fresh_process=False))
    manifest = verify_export(output)
    assert 1e-4 < manifest["written_gap"] < 5e-2 and manifest["merge_gap"] < 1e-5
    assert AutoModelForCausalLM.from_pretrained(output).dtype == torch.bfloat16
    with pytest.raises(MismatchError, match="differ from the adapter's"):
        run(Config(model=adapter_dir, output_dir=tmp_path / "strict", dtype="bfloat16", tolerance=1e-4, fresh_process=False))
    assert not (tmp_path / "strict").exists()


def test_padding_rows_are_cut_off(tmp_path: Path) -> None:
    folder = save_model(tiny_llama(vocab_size=320), tiny_tokenizer(), tmp_path / "padded")
    model, tokenizer = load_model(folder)
    merged, gap, rows_cut, _ = merge_adapter(model, tokenizer)
    assert (rows_cut, merged.config.vocab_size, gap) == (61, 259, 0.0)
    assert merged.lm_head.weight.shape[0] == merged.get_input_embeddings().weight.shape[0] == 259


def test_a_model_with_fewer_rows_than_tokens_is_refused() -> None:
    with pytest.raises(MismatchError, match="200 embedding rows for 259 tokens"):
        merge_adapter(tiny_llama(vocab_size=200), tiny_tokenizer())


def test_tokenizer_files_are_copied_byte_for_byte(exported: Path) -> None:
    adapter_dir = exported.parent / "adapter"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (exported / name).read_bytes() == (adapter_dir / name).read_bytes()


def test_a_folder_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    adapter_dir = save_adapter(tmp_path)
    (adapter_dir / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match=r"chat_template\.jinja"):
        run(Config(model=adapter_dir, output_dir=tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_the_chat_template_of_an_export_renders_the_prompt_contract(exported: Path) -> None:
    from llama_gene.data.prompts import encode_prompt

    tokenizer = AutoTokenizer.from_pretrained(exported)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "What is ACGT?"}], add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    assert ids == encode_prompt(tokenizer, "What is ACGT?")


def test_an_added_file_and_a_pickle_are_refused(copy: Path) -> None:
    (copy / "modeling_gene.py").write_text("print('hello')")
    with pytest.raises(MismatchError, match=r"holds modeling_gene\.py"):
        verify_export(copy)
    (copy / "modeling_gene.py").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(InputError, match="pickle"):
        verify_export(copy)


def test_a_changed_number_in_the_manifest_breaks_its_seal(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["written_gap"] = 0.0
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(MismatchError, match=r"manifest\.json was changed"):
        verify_export(copy)


def test_a_resealed_export_with_another_vocabulary_is_still_refused(copy: Path) -> None:
    tiny_tokenizer(("CG", "TA")).save_pretrained(copy)
    seal(copy)
    with pytest.raises(MismatchError, match="vocabulary"):
        verify_export(copy)


def test_probes_cover_dna_protein_and_english() -> None:
    assert len(PROBES) >= 9 and len(set(PROBES)) == len(PROBES)
