"""Packed rows on disk: a folder of Arrow files per language and split, and a manifest that says which tokenizer made them.

One shard of documents becomes one Arrow file, `{language}.{split}/00000.jsonl` -> `00000.arrow`, with its counts beside it (00000.json).
What a shard's rows are depends on its bytes, the vocabulary, the row length and the packing alone: so shards are packed in any order, by
any number of workers, to the same bytes, and one that is there already under the same key is reused.

`ids` are int32 and memory-mapped (datasets, Arrow); a row set is read in any order without loading it.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llama_gene import runtime
from llama_gene.data.packing import Int64, PackCounts, Packing, RowBatch, RowPacker
from llama_gene.data.workers import Engine, run_tasks
from llama_gene.errors import InputError, MismatchError, MissingFileError
from llama_gene.sequences.records import read_documents
from llama_gene.tokenization.tokenizer import encode_arrays, load_tokenizer, vocabulary_fingerprint

FORMAT = 1  # raise it when the same documents become other rows: earlier ones are then packed again
LETTERS_A_BATCH = 1 << 18  # encoded at a time: their ids stay in the cache
ROWS_A_BATCH = 1000  # of an Arrow file: 2 MB at 512 tokens

Unit = Literal["tokens", "bytes", "rows"]


@dataclass
class ShardCounts(PackCounts):
    """What a shard, or many, hold; `tokens` with specials, `bytes` of the text in UTF-8."""

    letters: int = 0
    bytes: int = 0

    def add(self, other: Mapping[str, Any]) -> None:
        """Add the counts of another shard."""
        for name in asdict(self):
            setattr(self, name, getattr(self, name) + other[name])


def write_rows(
    shards: Mapping[tuple[str, str], Sequence[Path]],
    hashes: Mapping[Path, str],
    choice: PackChoice,
    folder: Path,
    earlier: Path,
    workers: int = 1,
    engine: Engine = "local",
) -> dict[str, dict[str, Any]]:
    """Pack the shards of each (language, split) into `folder/{language}.{split}`; return the facts by language and split.

    The facts of a split are the sums of `ShardCounts` and `shards`, each with its file's name, rows and size. Shards that are there under
    the same key, or in the folder `earlier`, are not packed again; what else is in `folder` is deleted. Raises what `run_tasks` raises.
    """
    tasks = {
        place: [PackTask(str(source), hashes[source], choice, str(_arrow_path(folder, place, source))) for source in sources]
        for place, sources in shards.items()
    }
    for task in (task for group in tasks.values() for task in group):
        _take_over(earlier / Path(task.path).relative_to(folder), task)
    done = iter(run_tasks(pack_shard, [task for group in tasks.values() for task in group], workers, engine, "pack: shards"))
    report: dict[str, dict[str, Any]] = {}
    wanted = {Path(task.path).with_suffix(suffix) for group in tasks.values() for task in group for suffix in (".arrow", ".json")}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path not in wanted:  # of an interrupted run: a temporary file, a shard that the corpus no longer has
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    for (language, split), group in tasks.items():
        counts = ShardCounts()
        files = []
        for task in group:
            facts = next(done)
            counts.add(facts)
            name = Path(task.path).relative_to(folder).as_posix()
            files.append({"file": name, "rows": facts["rows"], "file_bytes": facts["file_bytes"], "key": facts["key"]})
        report.setdefault(language, {})[split] = {**asdict(counts), "shards": files}
    return report


def _take_over(earlier: Path, task: PackTask) -> None:
    """Link an earlier shard into its new place if it holds the same rows."""
    path = Path(task.path)
    if _packed(path, task.key) or not _packed(earlier, task.key):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".arrow", ".json"):  # the counts last: they say that the rows are whole
        with runtime.whole_file(path.with_suffix(suffix)) as temporary:
            try:
                os.link(earlier.with_suffix(suffix), temporary)
            except OSError:  # a file system without links
                shutil.copyfile(earlier.with_suffix(suffix), temporary)


def _packed(path: Path, key: str) -> dict[str, Any] | None:
    """Return the counts of a shard that was packed under this key and is whole."""
    facts_path = path.with_suffix(".json")
    if not (path.is_file() and facts_path.is_file()):
        return None
    facts: dict[str, Any] = runtime.read_json(facts_path)
    return facts if facts.get("key") == key and facts.get("file_bytes") == path.stat().st_size else None


def _arrow_path(folder: Path, place: tuple[str, str], source: Path) -> Path:
    return folder / ".".join(place) / f"{source.stem}.arrow"


@dataclass(frozen=True)
class PackChoice:
    """How documents become rows."""

    tokenizer: str
    """Folder, file or hub id."""
    vocabulary: str
    """Its fingerprint."""
    begin: int | None
    """Token before a document, None for none."""
    end: int
    """Token behind it."""
    row_length: int
    packing: Packing


def choose(name: str, tokenizer: Any, row_length: int, packing: Packing) -> PackChoice:
    """Return the choice of a tokenizer that was loaded from `name`; this process need not load it again."""
    choice = PackChoice(name, vocabulary_fingerprint(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, row_length, packing)
    _OPENED.clear()
    _OPENED[choice] = tokenizer
    return choice


_OPENED: dict[PackChoice, Any] = {}  # the tokenizer that this process uses


@dataclass(frozen=True)
class PackTask:
    """One shard to pack; `pack_shard` may run it in another process."""

    source: str
    """Path of the documents."""
    source_hash: str
    choice: PackChoice
    path: str
    """The Arrow file to write."""

    @property
    def key(self) -> str:
        """What the rows depend on."""
        choice = {name: value for name, value in asdict(self.choice).items() if name != "tokenizer"}
        return runtime.fingerprint([FORMAT, self.source_hash, choice])


def pack_shard(task: PackTask) -> dict[str, Any]:
    """Write a shard's rows and counts, unless they are there; return the counts, with `key` and the file's size."""
    path = Path(task.path)
    known = _packed(path, task.key)
    if known is not None:
        return known
    facts_path = path.with_suffix(".json")
    facts_path.unlink(missing_ok=True)  # counts stand beside whole rows only
    tokenizer = _open_tokenizer(task.choice)
    counts = write_shard(read_documents(Path(task.source)), tokenizer, task.choice.row_length, task.choice.packing, path)
    facts = {"key": task.key, "file_bytes": path.stat().st_size, **counts}
    runtime.write_json(facts_path, facts)
    return facts


def write_shard(documents: Iterable[tuple[str, str]], tokenizer: Any, row_length: int, packing: Packing, path: Path) -> dict[str, int]:
    """Pack (id, text) documents into the Arrow file `path`, whole or not at all; return the fields of `ShardCounts`."""
    import datasets
    import pyarrow as pa

    column = datasets.Sequence(datasets.Value("int32"))
    schema = datasets.Features({"input_ids": column, "lengths": column}).arrow_schema
    counts = ShardCounts()
    packer = RowPacker(row_length, packing, counts)
    with runtime.whole_file(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
            for rows in packer.pack(_encode(documents, tokenizer, counts)):
                for columns in _columns(rows):
                    stream.write_batch(pa.record_batch([pa.ListArray.from_arrays(*column) for column in columns], schema=schema))
    return asdict(counts)


def _encode(documents: Iterable[tuple[str, str]], tokenizer: Any, counts: ShardCounts) -> Iterator[list[NDArray[np.int32]]]:
    """Yield batches of [BOS] ids EOS of each text."""
    begin = np.array([] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id], np.int32)
    end = np.array([tokenizer.eos_token_id], np.int32)
    for texts in _batches(documents):
        for text in texts:
            counts.letters += len(text)
            counts.bytes += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        yield [np.concatenate([begin, ids, end]) for ids in encode_arrays(tokenizer, texts)]


def _batches(documents: Iterable[tuple[str, str]]) -> Iterator[list[str]]:
    """Yield lists of texts of about LETTERS_A_BATCH."""
    texts: list[str] = []
    letters = 0
    for _, text in documents:
        texts.append(text)
        letters += len(text)
        if letters >= LETTERS_A_BATCH:
            yield texts
            texts, letters = [], 0
    if texts:
        yield texts


def _columns(rows: RowBatch) -> Iterator[list[tuple[NDArray[np.int32], NDArray[np.int32]]]]:
    """Yield (offsets, values) of the columns input_ids and lengths, ROWS_A_BATCH rows at a time."""
    lengths = np.diff(rows.segment_ends, prepend=0).astype(np.int32)
    row_starts = np.concatenate([[0], rows.row_ends])
    segment_starts = np.concatenate([[0], np.searchsorted(rows.segment_ends, rows.row_ends, side="right")])
    for first in range(0, len(rows.row_ends), ROWS_A_BATCH):
        chosen = slice(first, first + ROWS_A_BATCH + 1)
        yield [_column(row_starts[chosen], rows.ids), _column(segment_starts[chosen], lengths)]


def _column(edges: Int64, values: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return (edges - edges[0]).astype(np.int32), values[edges[0] : edges[-1]]


def _open_tokenizer(choice: PackChoice) -> Any:
    """Return the tokenizer, loaded once in a process for all its shards."""
    if choice not in _OPENED:
        found = choose(choice.tokenizer, load_tokenizer(choice.tokenizer), choice.row_length, choice.packing)
        if found != choice:
            raise MismatchError(f"the tokenizer {choice.tokenizer} is now {found}", f"{choice}, as for the other shards", "Pack again")
    return _OPENED[choice]


def load_rows(folder: Path, split: str, tokenizer: Any | None = None) -> dict[str, Any]:
    """Return {language: rows} of one split, memory-mapped.

    Raises MismatchError when the rows were packed with another vocabulary than `tokenizer`'s, MissingFileError when some are gone,
    InputError when a file does not hold the rows that the manifest counts.
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
            shards = [_open_shard(folder / shard["file"], shard["rows"]) for shard in splits[split]["shards"]]
            row_sets[language] = shards[0] if len(shards) == 1 else datasets.concatenate_datasets(shards)
    return row_sets


def _open_shard(path: Path, num_rows: int) -> Any:
    """Return a memory-mapped shard of so many rows."""
    import datasets
    import pyarrow as pa

    if not path.is_file():
        raise MissingFileError(path, "the rows that the manifest counts", "Run `llama-gene pack` again")
    try:
        rows = datasets.Dataset.from_file(str(path))
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path} is damaged ({reason})", f"{num_rows:,} rows", "Delete it and run `llama-gene pack` again") from error
    if len(rows) != num_rows:
        raise InputError(f"{path} holds {len(rows):,} rows", f"the {num_rows:,} of the manifest", "Run `llama-gene pack` again")
    return rows


def row_tokens(rows: Any) -> NDArray[np.int64]:
    """Return the number of tokens of each row: of a list of rows, or of a memory-mapped set, whose tokens are not read for it."""
    if isinstance(rows, list):
        return np.fromiter((len(row["input_ids"]) for row in rows), np.int64, len(rows))
    import pyarrow.compute as compute

    lengths: NDArray[np.int64] = compute.list_value_length(rows.data.column("input_ids")).to_numpy().astype(np.int64)
    return lengths


def held_out_rows(row_sets: Mapping[str, Any], num_tokens: int) -> dict[str, list[dict[str, Any]]]:
    """Return rows of each language, evenly spaced over its row set, that hold about `num_tokens` tokens; all where there are fewer."""
    chosen: dict[str, list[dict[str, Any]]] = {}
    for language, rows in row_sets.items():
        total = int(row_tokens(rows).sum())
        count = min(len(rows), math.ceil(num_tokens * len(rows) / total)) if total else 0
        if count > 0:
            chosen[language] = [rows[number * len(rows) // count] for number in range(count)]
    return chosen


def mean_sizes(folder: Path, split: str, unit: Unit) -> dict[str, float]:
    """Return how many tokens, or bytes of text, a row of each language holds on average: what `row_shares` turns shares with."""
    languages = runtime.read_manifest(folder, "pack")["languages"]
    return {language: splits[split][unit] / max(splits[split]["rows"], 1) for language, splits in languages.items() if split in splits}
