"""Packed rows on disk: one Arrow folder per language and split, and a manifest that says which tokenizer made them.

`ids` are int32 and memory-mapped (datasets, Arrow); a row set is read in any order without loading it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from llama_gene import runtime
from llama_gene.data.corpus import read_corpus
from llama_gene.data.packing import pack_documents
from llama_gene.errors import MismatchError, MissingFileError
from llama_gene.tokenization.tokenizer import encode_batch, vocabulary_fingerprint

BATCH = 256  # documents encoded at a time: enough for the tokenizer's threads, small in memory
FILE_NAME = "rows.arrow"


def write_rows(corpus: Path, languages: Sequence[str], tokenizer: Any, row_length: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Pack every language and split of a corpus folder into `folder/{language}.{split}`; return counts per language.

    Each count holds, per split, documents, letters, tokens (specials included) and rows; a split without documents is left out.
    Raises MissingFileError when a file that the corpus's manifest counts is gone.
    """
    known = runtime.read_manifest(corpus, "corpus")["languages"]
    report: dict[str, dict[str, Any]] = {}
    for language in languages:
        report[language] = {}
        for split, num_documents in known[language]["documents"].items():
            if not (corpus / f"{language}.{split}.jsonl").is_file():
                raise MissingFileError(corpus / f"{language}.{split}.jsonl", "a file of the corpus", "Run `llama-gene corpus` again")
            counts = {"documents": 0, "letters": 0, "tokens": 0, "rows": 0}
            with runtime.progress(f"pack {language} {split}", "documents", num_documents) as bar:
                texts = _counted(read_corpus(corpus, language, split), bar, counts)
                _save(pack_documents(_encode(texts, tokenizer, counts), row_length), folder / f"{language}.{split}", counts)
            report[language][split] = counts
    return report


def _counted(documents: Iterable[tuple[str, str]], bar: Any, counts: dict[str, int]) -> Iterator[str]:
    """Yield the texts of documents, counting them and moving the bar."""
    for _, text in documents:
        counts["documents"] += 1
        counts["letters"] += len(text)
        bar.update()
        yield text


def _save(rows: Iterable[dict[str, list[int]]], folder: Path, counts: dict[str, int]) -> None:
    """Write rows to an Arrow folder without datasets' own cache (which would reuse stale rows)."""
    import datasets
    from datasets.arrow_writer import ArrowWriter

    ids = datasets.Sequence(datasets.Value("int32"))
    folder.mkdir(parents=True)
    with ArrowWriter(
        path=str(folder / FILE_NAME), features=datasets.Features({"input_ids": ids, "lengths": ids}), writer_batch_size=1000
    ) as writer:
        for row in rows:
            counts["rows"] += 1
            writer.write(row)
        writer.finalize()


def _encode(texts: Iterable[str], tokenizer: Any, counts: dict[str, int]) -> Iterator[list[int]]:
    """Yield [BOS] ids EOS of each text."""
    before = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    after = [tokenizer.eos_token_id]
    for batch in _batches(texts):
        for ids in encode_batch(tokenizer, batch):
            document = before + ids + after
            counts["tokens"] += len(document)
            yield document


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield lists of BATCH texts, the last one shorter."""
    iterator = iter(texts)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def load_rows(folder: Path, split: str, tokenizer: Any | None = None) -> dict[str, Any]:
    """Return {language: rows} of one split, memory-mapped.

    Raises MismatchError when the rows were packed with another vocabulary than `tokenizer`'s, MissingFileError when some are gone.
    """
    import datasets

    manifest = runtime.read_manifest(folder, "pack")
    if tokenizer is not None and manifest["vocabulary"] != vocabulary_fingerprint(tokenizer):
        raise MismatchError(
            f"the rows in {folder} were packed with vocabulary {manifest['vocabulary']}",
            f"the tokenizer's {vocabulary_fingerprint(tokenizer)}",
            "Pack the corpus again with this tokenizer",
        )
    row_sets = {}
    for language, splits in manifest["languages"].items():
        if split in splits:
            path = folder / f"{language}.{split}" / FILE_NAME
            if not path.is_file():
                raise MissingFileError(path, "the rows that the manifest counts", "Run `llama-gene pack` again")
            row_sets[language] = datasets.Dataset.from_file(str(path))
    return row_sets
