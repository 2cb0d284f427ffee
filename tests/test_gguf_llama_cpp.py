"""llama.cpp itself on our files: the same ids for texts that break tokenizers, the same greedy continuation, and the same logits nearly."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="the package gguf is not installed (extra gguf)")
pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (a source package that compiles for some minutes)")

from benchmarks.gguf_parity import compare, prompts_of_all_kinds
from llama_gene.errors import InputError
from llama_gene.export.gguf_check import ids_by_llama_cpp, ids_by_us
from llama_gene.recipes.export_gguf import Config, run
from llama_gene.runtime import read_json
from llama_gene.tokenization.tokenizer import open_vocabulary
from tests.fixtures.tiny_vocabularies import edge_texts, genes, spliced, write_gpt2
from tests.gguf_folders import export_folder, exported, small_llama
from tests.tiny_models import tiny_gpt2


@pytest.mark.parametrize("kind", ["sentencepiece", "tiktoken"])
def test_llama_cpp_gives_our_ids_and_transformers_continuation(kind: str, tmp_path: Path) -> None:
    folder = exported(kind).folder
    output = run(Config(model=folder, dtype="f32", output_dir=tmp_path / "out"))
    assert read_json(output / "manifest.json")["ids_compared"] == 9
    path = output / "exported-f32.gguf"
    assert ids_by_llama_cpp(path, edge_texts()) == ids_by_us(folder, edge_texts())
    found = compare(folder, path, prompts_of_all_kinds()[::7])
    assert (found.prompts, found.other_ids, found.beyond_gap) == (8, 0, 0) and found.largest_difference < 1e-3


@pytest.mark.parametrize("base", ["letters", "gpt2"])
def test_ids_agree_with_namespaced_letters_and_with_gpt2s_pattern(base: str, tmp_path: Path) -> None:
    if base == "letters":
        vocabulary = spliced("tiktoken").full.append_letters(["<3di:a>", "<3di:c>"])
        model = small_llama(vocabulary.num_ids)
    else:
        vocabulary = open_vocabulary(write_gpt2(tmp_path / "gpt2")).append(["ACG", "ACGT"])
        model = tiny_gpt2(vocabulary.num_ids)
    folder = export_folder(model, vocabulary, tmp_path)
    path = run(Config(model=folder, output_dir=tmp_path / "out")) / "exported-f32.gguf"
    texts = [*edge_texts(), "<3di:a>", "x <3di:a><3di:c> y", "<3di:q> <3di:c>\n\n b"]
    assert ids_by_llama_cpp(path, texts) == ids_by_us(folder, texts)
    print(compare(folder, path, genes(4, 60)))


@pytest.mark.parametrize(("dtype", "bound"), [("f16", 1e-2), ("bf16", 5e-2), ("q8_0", 2e-1)])
def test_smaller_types_open_and_are_near(dtype: str, bound: float, tmp_path: Path) -> None:
    folder = exported("tiktoken").folder
    path = run(Config(model=folder, dtype=dtype, output_dir=tmp_path / "out")) / f"exported-{dtype}.gguf"  # type: ignore[arg-type]
    found = compare(folder, path, prompts_of_all_kinds()[::16])
    print(found)
    assert found.other_ids == 0 and 0 < found.largest_difference < bound * found.largest_logit


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(InputError, match=r"llama\.cpp does not open .*bad\.gguf"):
        ids_by_llama_cpp(tmp_path / "bad.gguf", ["ACGT"])


@pytest.mark.parametrize("broken", ["interleave_heads", "rope_factors"])
def test_the_comparison_sees_positions_that_are_wrong(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if broken == "interleave_heads":
        monkeypatch.setattr("llama_gene.export.gguf_tensors.interleave_heads", lambda weight, heads: weight)
    else:
        monkeypatch.setattr("llama_gene.export.gguf.rope_factors", lambda config: None)
    folder = exported("tiktoken").folder
    path = run(Config(model=folder, output_dir=tmp_path / "out")) / "exported-f32.gguf"
    found = compare(folder, path, prompts_of_all_kinds()[::16])
    assert found.other_ids == 0 and found.beyond_gap > 0 and found.largest_difference > 0.1
