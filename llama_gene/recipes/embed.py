"""embed: a model + sequences -> their vectors as Parquet, a row a sequence (or a token).

Sequences come from any file that a corpus is made from, or from a column of a table; they are read without a prompt. The work goes in
parts: a run that was stopped goes on from its last whole part. How a vector is made stands in llama_gene/inference/embeddings.py.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_gene import runtime
from llama_gene.errors import ConfigError
from llama_gene.recipes.query_inputs import QueryInputs

if TYPE_CHECKING:
    from llama_gene.sequences.records import Record

EMBEDDINGS_DIR = "embeddings"
COUNTS = ("sequences", "letters", "tokens", "windows", "windowed", "rows")
ROW_GROUP_NUMBERS = 1 << 24  # float32 numbers of a row group: 64 MiB


@dataclass
class Config(QueryInputs):
    """Vectors of sequences."""

    pooling: Literal["mean", "last", "residue"] = "mean"
    """mean: over the tokens; last: the last token's; residue: a row for each token, with the letters that it stands for."""
    layers: list[int] = field(default_factory=lambda: [-1])
    """Layers to take: -1 the last, 0 the input embedding."""
    combine: Literal["concat", "mean"] = "concat"
    """What becomes of several layers: one vector behind the other, or their mean."""
    part_size: int = 10_000
    """Sequences of one part: what a stopped run may lose."""
    output_dir: Path | None = None
    """Folder to write: embeddings/00000.parquet and so on, manifest.json."""


def run(config: Config) -> Path:
    """Write the vectors; return the folder. The same command goes on where it was stopped, unless it reads standard input."""
    if config.model is None or not config.inputs or config.output_dir is None:
        raise ConfigError("model, inputs or output_dir is not given", "--model, --inputs and --output_dir")
    if config.part_size < 1:
        raise ConfigError(f"part_size is {config.part_size}", "at least 1 sequence")
    config.check()
    from llama_gene.sequences.letters import LetterCounts
    from llama_gene.sequences.queries import nothing_left

    log = runtime.get_logger()
    runtime.check_output(config.output_dir, "embed")
    paths = config.find()
    runtime.check_inputs_outside(config.output_dir, [path for path in paths if str(path) != "-"])
    counts = LetterCounts()
    records = config.read(paths, counts)
    first = next(records, None)  # bad input is refused before the model is loaded
    if first is None:
        raise nothing_left(paths, counts)

    from llama_gene.inference.embeddings import choose_layers, load_reader, room_of
    from llama_gene.recipes.train_stage import link_file

    reader = load_reader(config.model, config.precision)
    layers, room = choose_layers(reader, config.layers), room_of(reader, config.max_length)
    facts = {"model": config.model, **_identity(config.model, reader), "layers": layers, "causal": reader.causal, "window_tokens": room}
    work_dir = _open_work(config, paths, facts)
    totals = dict.fromkeys(COUNTS, 0)
    stream = _chain(first, records)
    with runtime.progress("embed", "sequence") as bar:
        num_parts = 0
        while (head := next(stream, None)) is not None:
            part = _chain(head, islice(stream, config.part_size - 1))
            told = _finished(work_dir, num_parts)
            if told is None:
                told = _write_part(work_dir, num_parts, part, reader, config, bar)
            else:
                bar.update(sum(1 for _ in part))
            totals = {name: totals[name] + told[name] for name in COUNTS}
            num_parts += 1
    log.info("embed: %s sequences, %s tokens; %s sequences in several windows", *_spoken(totals, "sequences", "tokens", "windowed"))
    width = reader.width * (len(layers) if config.combine == "concat" else 1)
    with runtime.whole_dir(config.output_dir) as folder:
        (folder / EMBEDDINGS_DIR).mkdir()
        for number in range(num_parts):
            link_file(work_dir / _part_name(number), folder / EMBEDDINGS_DIR / _part_name(number))
        runtime.write_manifest(folder, "embed", config, **facts, width=width, parts=num_parts, **totals, letter_counts=counts)
    shutil.rmtree(work_dir)
    log.info("embed: vectors of %s numbers written to %s", f"{width:,}", config.output_dir / EMBEDDINGS_DIR)
    return config.output_dir


# A Reader and an Embedded (inference/embeddings.py) are Any here: jsonargparse imports what annotations name, and torch takes seconds.


def _identity(model: str, reader: Any) -> dict[str, Any]:
    """Return what names the model: its weights and its vocabulary (None for a tokenizer without a tokenizer.json)."""
    from transformers import PreTrainedTokenizerFast

    from llama_gene.models.adapters import base_weights
    from llama_gene.tokenization.tokenizer import vocabulary_fingerprint

    is_fast = isinstance(reader.tokenizer, PreTrainedTokenizerFast)
    return {"weights": base_weights(model), "vocabulary": vocabulary_fingerprint(reader.tokenizer) if is_fast else None}


# Parts


def _open_work(config: Config, paths: list[Path | str], facts: dict[str, Any]) -> Path:
    """Return the folder of finished parts, emptied unless it holds those of the same model, inputs and settings."""
    assert config.output_dir is not None
    target = config.output_dir.resolve()
    work_dir = target.with_name(f".{target.name}.work")
    files = [Path(path) for path in paths if str(path) != "-"]
    settings = {name: value for name, value in vars(config).items() if name not in ("output_dir", "inputs", "data_dir", "batch_tokens")}
    key = runtime.fingerprint(
        [runtime.package_version(), settings, facts, [[entry["path"], entry["sha256"]] for entry in runtime.hash_files(files)]]
    )
    key_path = work_dir / "key.json"
    if len(files) < len(paths) or not key_path.is_file() or runtime.read_json(key_path) != key:
        shutil.rmtree(work_dir, ignore_errors=True)
        runtime.make_dir(work_dir, config.output_dir)
        runtime.write_json(key_path, key)
    return work_dir


def _part_name(number: int) -> str:
    return f"{number:05}.parquet"


def _finished(work_dir: Path, number: int) -> dict[str, int] | None:
    """Return the counts of a part that an earlier run finished, None if there is none."""
    path = work_dir / f"{number:05}.json"
    if not path.is_file() or not (work_dir / _part_name(number)).is_file():
        return None
    told: dict[str, int] = runtime.read_json(path)
    return told


def _write_part(work_dir: Path, number: int, records: Iterable[Record], reader: Any, config: Config, bar: Any) -> dict[str, int]:
    """Write the vectors of some records; return the counts."""
    import pyarrow.parquet as parquet

    from llama_gene.inference.embeddings import embed
    from llama_gene.sequences.alphabet import get_alphabet, write_letters

    alphabet = get_alphabet(config.kind)
    waiting: deque[_Waiting] = deque()
    told = dict.fromkeys(COUNTS, 0)

    def texts() -> Iterator[str]:
        for record in records:
            text = write_letters(record.sequence, alphabet)
            waiting.append(_Waiting(record, text))
            yield text

    width = reader.width * (len(config.layers) if config.combine == "concat" else 1)
    schema = _schema(width, config)
    rows = _Rows(schema, max(1, ROW_GROUP_NUMBERS // width))
    found = embed(reader, texts(), config.pooling, config.layers, config.combine, config.max_length, config.batch_tokens)
    with runtime.whole_file(work_dir / _part_name(number)) as temporary:
        with parquet.ParquetWriter(temporary, schema) as writer:
            for piece in found:
                told["rows"] += len(piece.vectors)
                rows.add(_columns(piece, waiting[0], reader, config.pooling), piece.vectors, writer)
                if piece.is_last:
                    record = waiting.popleft().record
                    told["sequences"] += 1
                    told["letters"] += len(record.sequence)
                    told["tokens"] += piece.tokens
                    told["windows"] += piece.windows
                    told["windowed"] += piece.windows > 1
                    bar.update(1)
            rows.flush(writer)
    runtime.write_json(work_dir / f"{number:05}.json", told)
    return told


def _schema(width: int, config: Config) -> Any:
    """Return the columns of a part; the schema's metadata says what the vectors are."""
    import pyarrow as pa

    names: list[tuple[str, Any]] = [("id", pa.string())]
    if config.pooling == "residue":
        names += [("token", pa.int64()), ("start", pa.int64()), ("end", pa.int64()), ("letters", pa.string())]
    else:
        names += [("length", pa.int64()), ("tokens", pa.int64()), ("windows", pa.int64())]
    about = {"model": str(config.model), "pooling": config.pooling, "layers": " ".join(map(str, config.layers)), "combine": config.combine}
    return pa.schema([*names, ("embedding", pa.list_(pa.float32(), width))], metadata={f"llama_gene.{key}": v for key, v in about.items()})


@dataclass
class _Waiting:
    """A record whose vectors are not there yet, or not all."""

    record: Record
    text: str
    spans: list[tuple[int, int]] | None = None
    """Letters of each token, once they are asked for."""


def _columns(piece: Any, waiting: _Waiting, reader: Any, pooling: str) -> dict[str, list[Any]]:
    """Return the columns beside the vectors."""
    from llama_gene.inference.embeddings import token_spans

    record = waiting.record
    if pooling != "residue":
        return {"id": [record.id], "length": [len(record.sequence)], "tokens": [piece.tokens], "windows": [piece.windows]}
    if waiting.spans is None:
        signs = len(waiting.text) // len(record.sequence)  # of a letter in the text: 1, or those of a token such as <3di:d>
        waiting.spans = [(start // signs, -(-end // signs)) for start, end in token_spans(reader, waiting.text)]
    numbers = range(piece.first_token, piece.first_token + len(piece.vectors))
    spans = [waiting.spans[i] for i in numbers]
    return {
        "id": [record.id] * len(spans),
        "token": list(numbers),
        "start": [start for start, _ in spans],
        "end": [end for _, end in spans],
        "letters": [record.sequence[start:end] for start, end in spans],
    }


class _Rows:
    """Gathers rows into row groups."""

    def __init__(self, schema: Any, size: int) -> None:
        self.schema, self.size = schema, size
        self.columns: dict[str, list[Any]] = {name: [] for name in schema.names[:-1]}
        self.vectors: list[Any] = []
        self.num_rows = 0

    def add(self, columns: dict[str, list[Any]], vectors: Any, writer: Any) -> None:
        """Add rows; write a row group when there are enough."""
        for name, values in columns.items():
            self.columns[name] += values
        self.vectors.append(vectors)
        self.num_rows += len(vectors)
        if self.num_rows >= self.size:
            self.flush(writer)

    def flush(self, writer: Any) -> None:
        """Write what is there."""
        import numpy as np
        import pyarrow as pa

        if not self.num_rows:
            return
        field_ = self.schema.field("embedding")
        flat = pa.array(np.concatenate(self.vectors).ravel(), pa.float32())
        arrays = [pa.array(self.columns[name], self.schema.field(name).type) for name in self.columns]
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=field_.type))
        writer.write_table(pa.Table.from_arrays(arrays, schema=self.schema))
        self.columns = {name: [] for name in self.columns}
        self.vectors, self.num_rows = [], 0


def _chain(first: Record, others: Iterable[Record]) -> Iterator[Record]:
    """Yield a record that was read ahead, then the others."""
    yield first
    yield from others


def _spoken(totals: dict[str, int], *names: str) -> list[str]:
    return [f"{totals[name]:,}" for name in names]
