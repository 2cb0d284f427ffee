"""Rows: packed, written, read back and refused under another tokenizer."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llama_gene.data.corpus import CutPolicy, Source
from llama_gene.data.rows import BATCH, load_rows
from llama_gene.errors import MismatchError, MissingFileError
from llama_gene.recipes import corpus, pack
from llama_gene.runtime import read_manifest
from llama_gene.tokenization.tokenizer import decode, vocabulary_fingerprint
from tests.fixtures.tiny_tokenizers import sentencepiece_like, tiktoken_like, without_bos
from tests.tiny_models import tiny_tokenizer

KINDS = [sentencepiece_like, tiktoken_like, without_bos]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of DNA, protein and English; more documents than one batch, and no held-out English."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(0)
    genome = "".join(rng.choices("ACGT", k=12_000))
    (folder / "a.fa").write_text(f">chr1\n{genome[:6000]}NNN{genome[6000:]}\n")
    proteins = ("".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=rng.randint(10, 60))) for _ in range(60))
    (folder / "p.fa").write_text("".join(f">p{number}\n{protein}\n" for number, protein in enumerate(proteins)))
    (folder / "e.jsonl").write_text('{"text": "  Two  spaces, größer: </s> is text.\\n\\nA gene\'s end.  "}\n{"text": "x"}\n')
    sources = [
        Source("dna", inputs=[str(folder / "a.fa")]),
        Source("protein", inputs=[str(folder / "p.fa")]),
        Source("english", inputs=[str(folder / "e.jsonl")], split="train"),
    ]
    return corpus.run(corpus.Config(sources, CutPolicy(20, 40, valid_fraction=0.1), output_dir=folder / "corpus"))


def pack_with(documents: Path, out: Path, tokenizer: PreTrainedTokenizerFast, row_length: int = 32) -> Path:
    tokenizer.save_pretrained(out.parent / "tokenizer")
    return pack.run(pack.Config(documents, str(out.parent / "tokenizer"), row_length=row_length, output_dir=out))


def texts(documents: Path, language: str, split: str) -> list[str]:
    from llama_gene.data.corpus import read_corpus

    return [text for _, text in read_corpus(documents, language, split)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_decode_to_the_documents(documents: Path, tmp_path: Path, kind: Callable[[], PreTrainedTokenizerFast]) -> None:
    tokenizer = kind()
    folder = pack_with(documents, tmp_path / "rows", tokenizer)
    languages = read_manifest(folder, "pack")["languages"]
    assert set(languages) == {"dna", "protein", "english"} and set(languages["english"]) == {"train"}
    for split in ("train", "valid"):
        for language, rows in load_rows(folder, split, tokenizer).items():
            ids = [token for row in rows["input_ids"] for token in row]
            expected = texts(documents, language, split)
            ends = [place for place, token in enumerate(ids) if token == tokenizer.eos_token_id]
            starts = [0, *(end + 1 for end in ends[:-1])]
            begins = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
            found = [ids[start:end] for start, end in zip(starts, ends, strict=True)]
            assert all(document[: len(begins)] == begins for document in found) and ends[-1] == len(ids) - 1
            assert [decode(tokenizer, document[len(begins) :]) for document in found] == expected
            assert languages[language][split] == {
                "documents": len(expected), "letters": sum(map(len, expected)), "tokens": len(ids), "rows": len(rows),
            }  # fmt: skip
            assert {len(row) for row in rows["input_ids"][:-1]} <= {32}
            assert [sum(lengths) for lengths in rows["lengths"]] == [len(row) for row in rows["input_ids"]]
    assert languages["dna"]["train"]["documents"] > BATCH


def test_law_15_the_same_corpus_and_tokenizer_give_the_same_bytes(documents: Path, tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        folder = pack_with(documents, tmp_path / name / "rows", tiktoken_like())
        written.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("rows.arrow")})
    assert len(written[0]) == 5 and written[0] == written[1]


def test_rows_of_another_tokenizer_are_refused_and_both_are_named(documents: Path, tmp_path: Path) -> None:
    ours, other = tiny_tokenizer(), tiny_tokenizer(("AC",))
    folder = pack_with(documents, tmp_path / "rows", ours)
    assert set(load_rows(folder, "train", ours)) == {"dna", "protein", "english"}
    both = f"packed with vocabulary {vocabulary_fingerprint(ours)}; expected the tokenizer's {vocabulary_fingerprint(other)}"
    with pytest.raises(MismatchError, match=re.escape(both)):
        load_rows(folder, "train", other)


def test_ids_beyond_uint16_are_kept(documents: Path, tmp_path: Path) -> None:
    vocab = {
        piece: number for number, piece in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), *map(str, range(10, 70_000)), "</s>"])
    }
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    rows = load_rows(pack_with(documents, tmp_path / "rows", tokenizer), "train")["english"]
    assert max(max(row) for row in rows["input_ids"]) == tokenizer.eos_token_id == len(vocab) - 1 > 65_535


def test_rows_and_documents_that_are_gone_are_named(documents: Path, tmp_path: Path) -> None:
    shutil.copytree(documents, tmp_path / "corpus")
    folder = pack_with(tmp_path / "corpus", tmp_path / "rows", tiny_tokenizer())
    shutil.rmtree(folder / "dna.train")
    with pytest.raises(MissingFileError, match=r"dna\.train/rows\.arrow does not exist; expected the rows that the manifest counts"):
        load_rows(folder, "train")
    (tmp_path / "corpus" / "protein.valid.jsonl").unlink()
    with pytest.raises(MissingFileError, match=r"protein\.valid\.jsonl does not exist; expected a file of the corpus"):
        pack_with(tmp_path / "corpus", tmp_path / "again", tiny_tokenizer())
    assert not (tmp_path / "again").exists()
