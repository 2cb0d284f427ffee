"""Rows: packed shard by shard, read back, and refused under another tokenizer or when they are not what the manifest counts."""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llama_gene.data import rows as rows_module
from llama_gene.data.packing import Packing
from llama_gene.data.rows import load_rows, mean_sizes, write_shard
from llama_gene.errors import InputError, MismatchError, MissingFileError
from llama_gene.recipes import pack
from llama_gene.runtime import read_json, read_manifest
from llama_gene.tokenization import tokenizer as tokenizer_module
from llama_gene.tokenization.tokenizer import decode, load_tokenizer, vocabulary_fingerprint
from tests.fixtures.documents import write_documents
from tests.fixtures.tiny_tokenizers import sentencepiece_like, tiktoken_like, without_bos
from tests.fixtures.tiny_vocabularies import DATA, edge_texts, needs_data, real_genes, real_proteins
from tests.tiny_models import tiny_tokenizer

KINDS = [sentencepiece_like, tiktoken_like, without_bos]
PACKINGS: list[Packing] = ["concatenate", "best_fit"]


def some_texts() -> dict[str, dict[str, list[list[str]]]]:
    """Return DNA in three shards, protein in one, and English without a held-out part."""
    rng = random.Random(0)
    dna = ["".join(rng.choices("ACGT", k=rng.randint(20, 40))) for _ in range(400)]
    protein = ["".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=rng.randint(10, 90))) for _ in range(60)]
    english = ["  Two  spaces, größer: </s> is text.\n\nA gene's end.  ", "x"]
    return {
        "dna": {"train": [dna[:150], dna[150:151], dna[151:360]], "valid": [dna[360:]]},
        "protein": {"train": [protein[:50]], "valid": [protein[50:]]},
        "english": {"train": [english]},
    }


TEXTS = some_texts()


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_documents(tmp_path_factory.mktemp("corpus"), TEXTS)


def pack_with(documents: Path, out: Path, tokenizer: PreTrainedTokenizerFast, row_length: int = 32, **choices: Any) -> Path:
    tokenizer.save_pretrained(out.parent / "tokenizer")
    return pack.run(pack.Config(documents, str(out.parent / "tokenizer"), row_length=row_length, output_dir=out, **choices))


def segments(rows: Any) -> Iterator[list[int]]:
    for ids, lengths in zip(rows["input_ids"], rows["lengths"], strict=True):
        start = 0
        for length in lengths:
            yield ids[start : start + length]
            start += length
        assert start == len(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_decode_to_the_documents(documents: Path, tmp_path: Path, kind: Callable[[], PreTrainedTokenizerFast]) -> None:
    tokenizer = kind()
    folder = pack_with(documents, tmp_path / "rows", tokenizer)
    languages = read_manifest(folder, "pack")["languages"]
    assert set(languages) == {"dna", "protein", "english"} and set(languages["english"]) == {"train"}
    begins = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for split in ("train", "valid"):
        for language, rows in load_rows(folder, split, tokenizer).items():
            ids = [token for row in rows["input_ids"] for token in row]
            expected = [text for shard in TEXTS[language][split] for text in shard]
            ends = [place for place, token in enumerate(ids) if token == tokenizer.eos_token_id]
            starts = [0, *(end + 1 for end in ends[:-1])]
            found = [ids[start:end] for start, end in zip(starts, ends, strict=True)]
            assert all(document[: len(begins)] == begins for document in found) and ends[-1] == len(ids) - 1
            assert [decode(tokenizer, document[len(begins) :]) for document in found] == expected
            facts = languages[language][split]
            assert (facts["documents"], facts["letters"]) == (len(expected), sum(map(len, expected)))
            assert (facts["tokens"], facts["rows"]) == (len(ids), len(rows))
            assert facts["bytes"] == len("".join(expected).encode()) and facts["unused_tokens"] == 32 * len(rows) - len(ids)
            assert sum(length < 32 for length in map(len, rows["input_ids"])) <= len(facts["shards"])  # the last row of each shard
            assert list(map(sum, rows["lengths"])) == list(map(len, rows["input_ids"]))


@pytest.mark.parametrize("kind", KINDS)
def test_best_fit_keeps_every_document_whole_that_fits_into_a_row(
    documents: Path, tmp_path: Path, kind: Callable[[], PreTrainedTokenizerFast]
) -> None:
    tokenizer = kind()
    folder = pack_with(documents, tmp_path / "rows", tokenizer, row_length=40, packing="best_fit")
    languages = read_manifest(folder, "pack")["languages"]
    begins = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for language, rows in load_rows(folder, "train", tokenizer).items():
        found = list(segments(rows))
        whole = [part for part in found if part[-1] == tokenizer.eos_token_id and part[: len(begins)] == begins]
        texts = Counter(decode(tokenizer, part[len(begins) : -1]) for part in whole)
        expected = Counter(text for shard in TEXTS[language]["train"] for text in shard)
        cut = languages[language]["train"]["cut_documents"]
        if begins:  # without them, the rest of a cut document looks whole
            assert texts <= expected and (expected - texts).total() == cut
        if not cut:
            assert texts == expected
        assert sum(map(len, found)) == languages[language]["train"]["tokens"]
        assert max(map(len, rows["input_ids"])) <= 40


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(max_size=60) | st.text("ACGT", max_size=60), max_size=12), packing=st.sampled_from(PACKINGS))
def test_no_letter_is_lost_whatever_the_texts(tmp_path_factory: pytest.TempPathFactory, texts: list[str], packing: Packing) -> None:
    tokenizer = tiktoken_like()
    path = tmp_path_factory.mktemp("shard") / "00000.arrow"
    counts = write_shard(((str(number), text) for number, text in enumerate(texts)), tokenizer, 8, packing, path)
    rows = rows_module._open_shard(path, counts["rows"]) if counts["rows"] else {"input_ids": [], "lengths": []}
    assert counts["letters"] == sum(map(len, texts)) and counts["bytes"] == sum(len(text.encode()) for text in texts)
    assert counts["documents"] == len(texts) and counts["tokens"] == sum(map(len, rows["input_ids"]))
    ids = Counter(token for row in rows["input_ids"] for token in row)
    expected = Counter(token for text in texts for token in tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)
    expected.update({tokenizer.bos_token_id: len(texts), tokenizer.eos_token_id: len(texts)})
    if not any(name in text for name in ("<s>", "</s>", "<unk>") for text in texts):
        assert ids == +expected


def test_law_15_any_number_of_workers_gives_the_same_bytes(documents: Path, tmp_path: Path) -> None:
    for packing in PACKINGS:
        written = []
        for name, workers in (("one", 1), ("again", 1), ("two", 2))[: 3 if packing == "best_fit" else 2]:
            folder = pack_with(documents, tmp_path / packing / name / "rows", tiktoken_like(), packing=packing, workers=workers)
            written.append({path.relative_to(folder): path.read_bytes() for path in folder.glob("*/*")})
        assert len(written[0]) == 2 * 7 and all(files == written[0] for files in written)


def test_law_15_the_size_of_a_batch_changes_no_byte(documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [(str(number), text) for shard in TEXTS["dna"]["train"] for number, text in enumerate(shard)]
    written = []
    for letters in (1, 500, 1 << 18):
        monkeypatch.setattr(rows_module, "LETTERS_A_BATCH", letters)
        for packing in PACKINGS:
            write_shard(iter(texts), tiktoken_like(), 32, packing, tmp_path / f"{packing}{letters}.arrow")
        written.append([(tmp_path / f"{packing}{letters}.arrow").read_bytes() for packing in PACKINGS])
    assert written[0] == written[1] == written[2]


@needs_data
@pytest.mark.parametrize("letters_worth_tables", [0, 1 << 60])
def test_real_documents_come_back_from_the_rows_by_either_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, letters_worth_tables: int
) -> None:
    assert DATA is not None
    monkeypatch.setattr(tokenizer_module, "LETTERS_WORTH_TABLES", letters_worth_tables)
    tokenizer = load_tokenizer(Path(DATA) / "tokenizers" / "llama2" / "tokenizer.model")
    texts = [text for text in [*real_genes(100_000), *real_proteins(50_000), *edge_texts()] if text]
    counts = write_shard((("", text) for text in texts), tokenizer, 512, "concatenate", tmp_path / "00000.arrow")
    ids = [token for row in rows_module._open_shard(tmp_path / "00000.arrow", counts["rows"])["input_ids"] for token in row]
    ends = [place for place, token in enumerate(ids) if token == tokenizer.eos_token_id]
    found = [decode(tokenizer, ids[start + 1 : end]) for start, end in zip([0, *(end + 1 for end in ends)], ends, strict=False)]
    assert found == texts and counts["letters"] == sum(map(len, texts))


def test_four_bytes_a_token_and_little_more(tmp_path: Path) -> None:
    rng = random.Random(1)
    texts = [("", "".join(rng.choices("ACGT", k=rng.randint(300, 1000)))) for _ in range(300)]
    counts = write_shard(iter(texts), tiny_tokenizer(("AC", "GT")), 512, "concatenate", tmp_path / "00000.arrow")
    assert (tmp_path / "00000.arrow").stat().st_size / counts["tokens"] < 4.1


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
    (folder / "dna.train" / "00001.arrow").unlink()
    with pytest.raises(MissingFileError, match=r"dna\.train/00001\.arrow does not exist; expected the rows that the manifest counts"):
        load_rows(folder, "train")
    (tmp_path / "corpus" / "protein.valid" / "00000.jsonl").unlink()
    with pytest.raises(MissingFileError, match=r"protein\.valid/00000\.jsonl does not exist; expected a file of the corpus"):
        pack_with(tmp_path / "corpus", tmp_path / "again", tiny_tokenizer())
    assert not (tmp_path / "again").exists()


def test_a_shard_with_other_rows_than_the_manifest_counts_is_refused(documents: Path, tmp_path: Path) -> None:
    folder = pack_with(documents, tmp_path / "rows", tiny_tokenizer())
    shutil.copyfile(folder / "dna.train" / "00001.arrow", folder / "dna.train" / "00002.arrow")
    with pytest.raises(InputError, match=r"dna\.train/00002\.arrow holds \d rows; expected the \d+ of the manifest"):
        load_rows(folder, "train")
    (folder / "dna.train" / "00002.arrow").write_bytes((folder / "dna.train" / "00001.arrow").read_bytes()[:700])
    with pytest.raises(InputError, match=r"dna\.train/00002\.arrow is damaged"):
        load_rows(folder, "train")


def test_counts_lie_beside_each_shard_and_add_up(documents: Path, tmp_path: Path) -> None:
    folder = pack_with(documents, tmp_path / "rows", tiny_tokenizer())
    facts = read_manifest(folder, "pack")["languages"]["dna"]["train"]
    shards = [read_json(folder / "dna.train" / f"0000{number}.json") for number in range(3)]
    for name in ("documents", "letters", "bytes", "tokens", "rows", "unused_tokens", "cut_documents"):
        assert facts[name] == sum(shard[name] for shard in shards)
    assert mean_sizes(folder, "train", "tokens")["dna"] == facts["tokens"] / facts["rows"]
    assert mean_sizes(folder, "valid", "bytes").keys() == {"dna", "protein"}
