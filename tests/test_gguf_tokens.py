"""The vocabulary of a GGUF file: pieces, scores, merges and types as they are; what llama.cpp cannot run is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gene.data.prompts import chat_template
from llama_gene.errors import InputError
from llama_gene.export.gguf_tokens import read_tokens
from llama_gene.tokenization.bpe import Vocabulary, reference_encode
from llama_gene.tokenization.tokenizer import open_vocabulary, write_tokenizer
from tests.fixtures.tiny_vocabularies import genes, proteins, spliced, with_structure, write_gemma, write_gpt2, write_qwen


def folder_of(vocabulary: Vocabulary, folder: Path) -> Path:
    write_tokenizer(vocabulary.tokenizer(), folder, chat_template())
    vocabulary.write_native(folder)
    return folder


def test_a_sentencepiece_table_is_the_tokenizer_model(tmp_path: Path) -> None:
    vocabulary = spliced("sentencepiece").full
    table = read_tokens(folder_of(vocabulary, tmp_path))
    assert (table.model, table.pre, table.add_bos, table.add_space_prefix, table.merges) == ("llama", "default", True, True, None)
    assert table.tokens == [piece.piece for piece in vocabulary.proto.pieces]  # type: ignore[attr-defined]
    assert table.types[:4] == [2, 3, 3, 6] and set(table.types[259:]) == {1}
    assert table.special_ids == {"unk": 0, "bos": 1, "eos": 2}
    assert table.scores is not None and table.scores[-1] == min(score for score in table.scores if score > -1e8)
    assert table.chat_template == chat_template()


def test_a_tiktoken_table_has_the_specials_at_their_ids_and_the_merges_in_order(tmp_path: Path) -> None:
    vocabulary = spliced("tiktoken").full
    table = read_tokens(folder_of(vocabulary, tmp_path))
    assert (table.model, table.pre, table.add_bos, table.add_space_prefix, table.scores) == ("gpt2", "llama-bpe", True, False, None)
    bos = table.special_ids["bos"]
    assert table.tokens[bos : bos + 2] == ["<|begin_of_text|>", "<|end_of_text|>"] and table.special_ids == {"bos": bos, "eos": bos + 1}
    assert table.types.count(3) == 256 and set(table.types) == {1, 3} and len(table.tokens) == vocabulary.num_ids
    assert table.tokens[:1] == ["Ā"]  # byte 0, as GPT-2 spells it
    assert table.merges is not None
    ranks = {tuple(merge.split(" ")): number for number, merge in enumerate(table.merges)}
    numbers = {token: number for number, token in enumerate(table.tokens)}
    for gene in [*genes(5, seed=21), *proteins(5, seed=22)]:
        pieces = reference_encode(gene, lambda left, right: ranks.get((left, right)))
        assert [numbers[piece] for piece in pieces] == vocabulary.tokenizer().encode(gene, add_special_tokens=False)


def test_gpt2s_pattern_is_known(tmp_path: Path) -> None:
    table = read_tokens(write_gpt2(tmp_path))
    assert (table.model, table.pre, table.add_bos) == ("gpt2", "gpt-2", False)
    assert table.tokens[-1] == "<|endoftext|>" and table.types[-1] == 3 and table.special_ids["eos"] == len(table.tokens) - 1


def test_namespaced_letters_are_user_defined_behind_tiktoken_and_refused_behind_sentencepiece(tmp_path: Path) -> None:
    letters = spliced("tiktoken").full.append_letters(["<3di:a>", "<3di:c>"])
    table = read_tokens(folder_of(letters, tmp_path / "tiktoken"))
    assert table.tokens[-2:] == ["<3di:a>", "<3di:c>"] and table.types[-2:] == [4, 4]
    with pytest.raises(InputError, match=r"puts a space behind every token such as '<3di:a>'"):
        read_tokens(folder_of(with_structure("sentencepiece"), tmp_path / "sentencepiece"))


@pytest.mark.parametrize("base", ["tiktoken", "gpt2"])
def test_an_isolating_pattern_is_refused_by_the_name_of_the_splice_without(base: str, tmp_path: Path) -> None:
    vocabulary = spliced("tiktoken").full if base == "tiktoken" else open_vocabulary(write_gpt2(tmp_path / "base"))
    folder = folder_of(vocabulary.isolated(), tmp_path / "isolated")
    line = r"isolates gene runs by a pattern, and llama\.cpp knows only its built-in patterns; .*`vocab splice --isolate false`"
    with pytest.raises(InputError, match=line):
        read_tokens(folder)


def test_other_tokenizers_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="normalizes its text, which llama.cpp does not"):
        read_tokens(write_qwen(tmp_path / "qwen"))
    with pytest.raises(InputError, match="normalizes its text"):
        read_tokens(write_gemma(tmp_path / "gemma"))
    content = (spliced("tiktoken").folder / "tokenizer.json").read_text(encoding="utf-8")
    for name, old, new, line in (
        ("pattern", "{1,3}", "{1,4}", "none of llama.cpp's patterns"),
        ("merges", '"ignore_merges": true', '"ignore_merges": false', "none of llama.cpp's patterns"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        assert old in content
        (folder / "tokenizer.json").write_text(content.replace(old, new), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        with pytest.raises(InputError, match=line):
            read_tokens(folder)
