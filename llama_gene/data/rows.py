"""Packed rows on disk: one Arrow folder per language and split, and a manifest that says which tokenizer made them.

`ids` are int32 and memory-mapped (datasets, Arrow); a row set is read in any order without loading it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llama_gene import runtime
from llama_gene.data.corpus import read_corpus
from llama_gene.data.packing import pack_documents
from llama_gene.errors import MismatchError
from llama_gene.tokenization.tokenizer import encode_batch, vocabulary_fingerprint

BATCH = 256  # documents encoded at a time: enough for the tokenizer's threads, small in memory


def write_rows(corpus: Path, languages: Sequence[str], tokenizer: Any, row_length: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Pack every language and split of a corpus folder into `folder/{language}.{split}`; return counts per language.

    Each count holds, per split, documents, letters, tokens (specials included) and rows.
    """
    import datasets

    report: dict[str, dict[str, Any]] = {}
    features = datasets.Features({"input_ids": datasets.Sequence(datasets.Value("int32")), "lengths": datasets.Sequence(datasets.Value("int32"))})
    datasets.disable_progress_bars()
    for language in languages:
        report[language] = {}
        for split in ("train", "valid"):
            if not (corpus / f"{language}.{split}.jsonl").stat().st_size:
                continue
            counts = {"documents": 0, "letters": 0, "tokens": 0, "rows": 0}

            # Bound as defaults: datasets fingerprints the generator's arguments, and closures must not change under it.
            def rows(language: str = language, split: str = split, counts: dict[str, int] = counts) -> Iterator[dict[str, list[int]]]:
                documents = tqdm(read_corpus(corpus, language, split), desc=f"pack {language} {split}", unit=" documents", leave=False)
                for row in pack_documents(_encode((text for _, text in documents), tokenizer, counts), row_length):
                    counts["rows"] += 1
                    yield row

            writer_path = folder / f"{language}.{split}"
            _save(datasets, rows(), features, writer_path)
            report[language][split] = counts
    return report


def _save(datasets: Any, rows: Iterator[dict[str, list[int]]], features: Any, folder: Path) -> None:
    """Write rows to an Arrow folder without datasets' own cache (which would reuse stale rows)."""
    from datasets.arrow_writer import ArrowWriter

    folder.mkdir(parents=True)
    with ArrowWriter(path=str(folder / "rows.arrow"), features=features, writer_batch_size=1000) as writer:
        for row in rows:
            writer.write(row)
        writer.finalize()


def _encode(texts: Iterator[str], tokenizer: Any, counts: dict[str, int]) -> Iterator[list[int]]:
    """Yield [BOS] ids EOS of each text."""
    before = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    after = [tokenizer.eos_token_id]
    batch: list[str] = []

    def encoded() -> Iterator[list[int]]:
        for ids in encode_batch(tokenizer, batch):
            document = before + ids + after
            counts["tokens"] += len(document)
            yield document

    for text in texts:
        counts["documents"] += 1
        counts["letters"] += len(text)
        batch.append(text)
        if len(batch) == BATCH:
            yield from encoded()
            batch.clear()
    yield from encoded()


def load_rows(folder: Path, split: str, tokenizer: Any | None = None) -> dict[str, Any]:
    """Return {language: rows} of one split, memory-mapped.

    Raises MismatchError when the rows were packed with another vocabulary than `tokenizer`'s.
    """
    import datasets

    manifest = runtime.read_manifest(folder, "pack")
    if tokenizer is not None and manifest["vocabulary"] != vocabulary_fingerprint(tokenizer):
        raise MismatchError(
            f"the rows in {folder} were packed with vocabulary {manifest['vocabulary']}",
            f"the tokenizer's {vocabulary_fingerprint(tokenizer)}",
            "Pack the corpus again with this tokenizer",
        )
    return {
        language: datasets.Dataset.from_file(str(folder / f"{language}.{split}" / "rows.arrow"))
        for language, splits in manifest["languages"].items()
        if split in splits
    }
