"""Any tokenizer, opened to be measured: ours, a SentencePiece model of any kind, tiktoken ranks, a tokenizer.json, GPT-2's two files.

`open_vocabulary` refuses what a splice could not run faithfully (Unigram models, user-defined pieces, text that is normalized). A report
must measure just those, so here every format gets a small adapter that says the same few things: what the pieces are, how the format's *own
library* encodes, what transformers makes of the same file, and whether a piece can ever occur. Told apart by content, never by name.

A piece can occur if the reference merge loop builds it from its letters (a Unigram model: if it is the best path through itself), and if
the pre-tokenizer leaves its text in one word in some surroundings. tiktoken and LLaMA-3's tokenizer.json look a whole word up before they
merge; that shortcut does not count, since it only helps where a word happens to be the piece.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import lzma
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene.errors import InputError
from llama_gene.runtime import MANIFEST_NAME, fingerprint, read_json
from llama_gene.sequences.alphabet import LETTER_TOKEN
from llama_gene.tokenization.bpe import SPACE_MARK, reference_encode
from llama_gene.tokenization.tiktoken_splice import LLAMA3_PATTERN, byte_characters, is_rank_file
from llama_gene.tokenization.tokenizer import (
    JSON_NAME,
    NATIVE_NAME,
    decode,
    encode_batch,
    load_tokenizer,
    open_vocabulary,
    vocabulary_fingerprint,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Encode = Callable[[list[str]], list[list[int]]]
Trace = Callable[[str], list[str]]
Flag = dict[str, str]

BYTE_SPACE = "\u0120"  # the space as byte-level tokenizers write it
LLAMA3_NUM_RANKS = 128_000

_NORMAL, _UNKNOWN, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 4, 5, 6  # ModelProto.SentencePiece.Type
_UNIGRAM, _BPE, _WORD, _CHAR = 1, 2, 3, 4  # TrainerSpec.ModelType
_MODEL_TYPES = {_UNIGRAM: "Unigram", _BPE: "BPE", _WORD: "word", _CHAR: "character"}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_GPT2_FILES = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))
_EXPECTED = "a tokenizer folder, a SentencePiece model, tiktoken ranks, a tokenizer.json or GPT-2's vocabulary and merges"
_NEIGHBOURS = [("", ""), (" ", ""), ("A", ""), ("", "A"), ("A", "A"), ("1", ""), ("", "1"), ("", " "), ("\n", ""), ("", "\n"), (".", "")]


@dataclass(frozen=True)
class Subject:
    """A tokenizer as the report sees it; ids never include BOS or EOS, and text that spells a special token stays text."""

    library: str
    """The format's own library: sentencepiece, tiktoken or tokenizers."""
    entries: list[tuple[str, int]]
    """Every piece and special token with its id, in the file's order and with its repetitions."""
    pieces: dict[str, int]
    """Text pieces and their ids: no specials, no raw bytes, no letters of namespaced alphabets."""
    specials: dict[str, int]
    token_bytes: dict[int, bytes]
    """id -> the UTF-8 bytes of text that it stands for; specials and the unknown token have none."""
    encode: Encode
    """As the format's own library encodes; a tokenizer.json as transformers runs it, which is how it is used."""
    decode: Callable[[list[int]], str]
    trace: Trace
    """What a piece's own letters become: the piece alone, if it can occur."""
    fingerprint: str
    load_seconds: float
    """Seconds that transformers takes to load it (the own library, where transformers cannot)."""
    transformers: Encode | None = None
    """What AutoTokenizer's tokenizer gives; None where transformers cannot load it. `encode` itself where the two are one."""
    transformers_ids: dict[str, int] = field(default_factory=dict)
    space_mark: str = SPACE_MARK
    scores: dict[str, float] | None = None
    """Scores of a SentencePiece model's ordinary pieces."""
    model_type: str = "BPE"
    gpt2_trace: Trace | None = None
    """`trace` under GPT-2's pattern, for a byte-level dictionary that has none and names no class: it is used with GPT2Tokenizer."""
    protein_blocks: list[range] | None = None
    """ids that splices of proteins have added, None where no manifest says so."""
    flags: list[Flag] = field(default_factory=list)
    """Faults that were seen on opening."""

    @property
    def num_ids(self) -> int:
        """One more than the highest id."""
        return 1 + max(number for _, number in self.entries)

    def ends(self, ids: Sequence[int]) -> list[int]:
        """Return where each token ends, in bytes; a word-start mark in front counts as a byte."""
        sizes = self.token_bytes
        return list(accumulate(len(sizes.get(number, b"")) for number in ids))

    def text(self, ids: Sequence[int]) -> str:
        """Return tokens as text, with a replacement mark for half a character."""
        return b"".join(self.token_bytes.get(number, b"") for number in ids).decode("utf-8", "replace")


def open_subject(source: Path | str) -> Subject:
    """Return the tokenizer of a folder, a file (also gzip or xz) or a hub id, opened to be measured.

    Raises InputError, in one line, for what is no tokenizer.
    """
    path = Path(source)
    if not path.exists():
        return _of_transformers(*_timed(lambda: load_tokenizer(source)), raw=None)
    if path.is_dir():
        return _open_folder(path)
    with _unpacked(path) as plain:
        return _open_file(plain, path)


def _open_folder(folder: Path) -> Subject:
    native = folder / NATIVE_NAME
    if native.is_file():
        return _of_ranks(native, folder) if is_rank_file(native) else _of_sentencepiece(native, folder)
    has_json = (folder / JSON_NAME).is_file()
    bare = not any((folder / name).is_file() for name in ("tokenizer_config.json", "config.json"))
    if bare and not has_json:
        for names in _GPT2_FILES:
            if all((folder / name).is_file() for name in names):
                return _of_gpt2_files(folder / names[0], folder / names[1])
        files = [path for path in sorted(folder.iterdir()) if re.search(r"\.(model|tiktoken|json|json\.gz)$", path.name)]
        if len(files) == 1:  # as the reference's repositories keep theirs: one file under a name of its own
            return open_subject(files[0])
    return _of_transformers(*_timed(lambda: load_tokenizer(folder)), raw=_raw(folder / JSON_NAME) if has_json else None, bare=bare)


def _open_file(path: Path, where: Path) -> Subject:
    start = path.read_bytes()[:64].lstrip()
    if start.startswith(b"{"):
        return _of_json_file(path, where)
    if start.startswith(b"#version"):
        for vocab, merges in _GPT2_FILES:
            if where.name == merges and (where.parent / vocab).is_file():
                return _of_gpt2_files(where.parent / vocab, where)
        raise InputError(f"{where} is a list of merges without its vocabulary", "encoder.json or vocab.json beside it", "Give the folder")
    return _of_ranks(path, where) if is_rank_file(path) else _of_sentencepiece(path, where)


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """Give the path of a file's content: itself, or a temporary file where it is gzip or xz."""
    content = path.read_bytes()
    unpack = {b"\x1f\x8b": gzip.decompress, b"\xfd7": lzma.decompress}.get(content[:2])
    if unpack is None:
        yield path
        return
    try:
        content = unpack(content)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error})", "a whole gzip or xz file", "Copy or download it again") from error
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.stem
        plain.write_bytes(content)
        yield plain


def _timed(load: Callable[[], PreTrainedTokenizerFast]) -> tuple[PreTrainedTokenizerFast, float]:
    """Return what a loader returns and the seconds it took; the library's import is not counted."""
    import transformers  # noqa: F401

    begin = time.perf_counter()
    loaded = load()
    return loaded, time.perf_counter() - begin


# SentencePiece


def _of_sentencepiece(path: Path, where: Path) -> Subject:
    """Open a SentencePiece model of any kind; `where` is the folder or the file that the user named."""
    try:
        return _of_whole_sentencepiece(path, where)
    except (RuntimeError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{where} is damaged ({reason})", "a whole SentencePiece model", "Copy or download it again") from error


def _of_whole_sentencepiece(path: Path, where: Path) -> Subject:
    import sentencepiece

    proto, flags = _read_proto(path, where), []
    entries = [(piece.piece, number) for number, piece in enumerate(proto.pieces)]
    runnable, repeated = _without_repetitions(proto)
    if repeated:
        flags.append(
            _flag("repeated pieces", f"sentencepiece itself refuses the file: {repeated:,} pieces are in it twice; measured without")
        )
    begin = time.perf_counter()
    processor: Any = sentencepiece.SentencePieceProcessor(model_proto=runnable.SerializeToString())
    load_seconds = time.perf_counter() - begin
    loaded = _loaded_by_transformers(where, path, "LlamaTokenizer", flags)
    kind = _MODEL_TYPES.get(proto.trainer_spec.model_type, "unknown")
    if kind != "BPE":
        flags.append(
            _flag(f"{kind} model", f"SentencePiece {kind} picks pieces by probability; a LLaMA tokenizer merges by priority (BPE)")
        )
    of_type = {number: piece.type for number, piece in enumerate(proto.pieces)}
    ordinary = {piece: number for piece, number in entries if of_type[number] == _NORMAL}
    defined = {piece for piece, number in entries if of_type[number] == _USER_DEFINED}
    content = [[[piece.piece, piece.score, piece.type] for piece in proto.pieces], kind, proto.normalizer_spec.SerializeToString().hex()]
    return Subject(
        library="sentencepiece",
        entries=entries,
        pieces={piece: number for piece, number in entries if of_type[number] == _NORMAL or _is_text(piece, of_type[number])},
        specials={piece: number for piece, number in entries if of_type[number] not in (_NORMAL, _USER_DEFINED, _BYTE)},
        token_bytes={number: _sentencepiece_bytes(piece, of_type[number]) for piece, number in entries},
        encode=lambda texts: list(processor.encode(texts, out_type=int, num_threads=1)),
        decode=lambda ids: str(processor.decode(ids)),
        trace=_sentencepiece_trace(runnable, ordinary, defined, processor),
        fingerprint=_fingerprint_of(where if where.is_dir() else path, loaded[0] if loaded else None, content),
        load_seconds=loaded[1] if loaded else load_seconds,
        transformers=_encoder(loaded[0]) if loaded else None,
        transformers_ids=loaded[0].get_vocab() if loaded else {},
        scores={piece.piece: piece.score for piece in proto.pieces if piece.type == _NORMAL},
        model_type=kind,
        protein_blocks=_protein_blocks(where),
        flags=flags,
    )


def _read_proto(path: Path, where: Path) -> Any:
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise InputError(f"{where} is no tokenizer that can be read, or it is damaged", _EXPECTED, "Copy or download it again") from error
    if not proto.pieces:
        raise InputError(f"{where} holds no pieces", _EXPECTED, "Copy or download it again")
    return proto


def _without_repetitions(proto: Any) -> tuple[Any, int]:
    """Return a model in which a repeated piece is unused, under a name of its own, and how many there are; the library refuses them."""
    runnable = type(proto)()
    runnable.CopyFrom(proto)
    seen: set[str] = set()
    repeated = 0
    for number, piece in enumerate(runnable.pieces):
        if piece.piece in seen:
            piece.piece, piece.type = f"{piece.piece}\ue000{number}", _UNUSED
            repeated += 1
        seen.add(piece.piece)
    return runnable, repeated


def _is_text(piece: str, kind: int) -> bool:
    return kind == _USER_DEFINED and LETTER_TOKEN.fullmatch(piece) is None


def _sentencepiece_bytes(piece: str, kind: int) -> bytes:
    if kind == _BYTE and (value := _BYTE_TOKEN.fullmatch(piece)):
        return bytes([int(value[1], 16)])
    return piece.replace(SPACE_MARK, " ").encode() if kind in (_NORMAL, _USER_DEFINED) else b""


def _sentencepiece_trace(proto: Any, ordinary: Mapping[str, int], defined: set[str], processor: Any) -> Trace:
    """Return what a piece becomes: under the merge loop or the best path, the normalizer and the user-defined pieces."""
    scores = {piece.piece: -piece.score for piece in proto.pieces if piece.type == _NORMAL and piece.piece in ordinary}
    firsts = {piece[0] for piece in defined}
    sizes = sorted({len(piece) for piece in defined})
    normalizes = bool(proto.normalizer_spec.precompiled_charsmap) or proto.normalizer_spec.remove_extra_whitespaces
    whole = _whole_word_processor(proto)

    def trace(piece: str) -> list[str]:
        if piece in defined:
            return [piece]
        merged = reference_encode(piece, lambda left, right: scores.get(left + right)) if whole is None else whole(piece)
        if merged != [piece]:
            return merged
        for start, letter in enumerate(piece):
            if letter in firsts and (cut := next((size for size in sizes if piece[start : start + size] in defined), None)):
                return [part for part in (piece[:start], piece[start : start + cut], piece[start + cut :]) if part]
        if normalizes:  # between two letters: spaces at an end are another matter
            normal = str(processor.normalize(f"A{piece.replace(SPACE_MARK, ' ')}A")).lstrip(SPACE_MARK)
            if f"A{piece}A" not in normal:
                return [normal[1:-1] or "nothing"]
        return [piece]

    return trace


def _whole_word_processor(proto: Any) -> Trace | None:
    """Return how a model that does not merge splits a word by itself, without normalizing it; None for BPE."""
    import sentencepiece

    if proto.trainer_spec.model_type == _BPE:
        return None
    inside = type(proto)()
    inside.CopyFrom(proto)
    inside.normalizer_spec.add_dummy_prefix = False
    inside.normalizer_spec.remove_extra_whitespaces = False
    inside.normalizer_spec.precompiled_charsmap = b""
    processor: Any = sentencepiece.SentencePieceProcessor(model_proto=inside.SerializeToString())
    return lambda word: list(processor.encode(word, out_type=str))


# tiktoken


def _of_ranks(path: Path, where: Path) -> Subject:
    """Open a tiktoken rank file; `where` is the folder or the file that the user named."""
    letters = byte_characters()
    ranks = _read_ranks(path, where)
    names = [("".join(letters[byte] for byte in piece), rank) for piece, rank in ranks]
    token_bytes = {rank: piece for piece, rank in ranks}
    flags: list[Flag] = []
    begin = time.perf_counter()
    try:
        vocabulary: Any = open_vocabulary(where if where.is_dir() else path)
        added = {name: number for name, number in vocabulary.ids().items() if number not in token_bytes}
        tokenizer = vocabulary.tokenizer()
        backend: Any = tokenizer.backend_tokenizer
        encode: Encode = vocabulary.native_encode
        back = _decoder(tokenizer)
    except InputError as error:
        if where.is_dir():
            flags.append(_flag("the splice cannot read it", str(error).removesuffix(".")))
        added = {}
        backend, encode, back = _plain_encoding(token_bytes)
    load_seconds = time.perf_counter() - begin
    unbroken = next((place for place, (_, rank) in enumerate(ranks) if place != rank), len(ranks))
    if unbroken != LLAMA3_NUM_RANKS and not (where / JSON_NAME).is_file():
        detail = f"{unbroken:,} ranks without a gap, where LLaMA-3 has {LLAMA3_NUM_RANKS:,}: LLaMA-3's pattern is assumed"
        flags.append(_flag("a rank file names no pattern", detail))
    token_bytes.update({number: name.encode() for name, number in added.items() if LETTER_TOKEN.fullmatch(name)})
    loaded = _loaded_by_transformers(where, path, None, flags)
    priority = dict(names)
    return Subject(
        library="tiktoken",
        entries=names + list(added.items()),
        pieces=priority,
        specials={name: number for name, number in added.items() if not LETTER_TOKEN.fullmatch(name)},
        token_bytes=token_bytes,
        encode=encode,
        decode=back,
        trace=_trace_by(partial(reference_encode, rank=lambda left, right: priority.get(left + right)), backend, priority, token_bytes),
        fingerprint=_fingerprint_of(where if where.is_dir() else path, loaded[0] if loaded else None, [names, added]),
        load_seconds=loaded[1] if loaded else load_seconds,
        transformers=_encoder(loaded[0]) if loaded else None,
        transformers_ids=loaded[0].get_vocab() if loaded else {},
        space_mark=BYTE_SPACE,
        protein_blocks=_protein_blocks(where),
        flags=flags,
    )


def _plain_encoding(token_bytes: Mapping[int, bytes]) -> tuple[Any, Encode, Callable[[list[int]], str]]:
    """Return pre-tokenizer, encoder and decoder of ranks with holes anywhere, under LLaMA-3's pattern and without specials."""
    import tiktoken
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    encoding = tiktoken.Encoding(
        "ranks", pat_str=LLAMA3_PATTERN, mergeable_ranks={piece: rank for rank, piece in token_bytes.items()}, special_tokens={}
    )
    backend: Any = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return backend, lambda texts: encoding.encode_ordinary_batch(texts, num_threads=1), encoding.decode


def _read_ranks(path: Path, where: Path) -> list[tuple[bytes, int]]:
    """Return the lines of a rank file, in order of rank. Raises InputError with the line that is none, or where bytes are missing."""
    ranks: list[tuple[bytes, int]] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            encoded, rank = line.split()
            ranks.append((base64.b64decode(encoded, validate=True), int(rank)))
            if not 0 <= ranks[-1][1] < 1 << 24:
                raise ValueError("out of range")
        except (ValueError, binascii.Error) as error:
            raise InputError(f"{where}, line {number}: not a rank", "base64 and a number", "Copy or download the file again") from error
    known = {piece for piece, _ in ranks}
    single = sum(bytes([value]) in known for value in range(256))
    if single < 256:
        raise InputError(f"{where} holds {single} of 256 bytes", "a rank for every byte", "Copy or download the file again")
    return sorted(ranks, key=lambda entry: entry[1])


# tokenizer.json and GPT-2's two files


def _of_json_file(path: Path, where: Path) -> Subject:
    """Open a tokenizer.json of any name, or GPT-2's vocabulary with its merges beside it."""
    from transformers import PreTrainedTokenizerFast

    content = read_json(path)
    if not isinstance(content.get("model"), dict):  # GPT-2 has a piece "model"
        for vocab, merges in _GPT2_FILES:
            if where.name == vocab and (where.parent / merges).is_file():
                return _of_gpt2_files(where, where.parent / merges)
        raise InputError(f"{where} is no tokenizer.json", _EXPECTED, "A vocabulary alone has no merges: give the folder")
    raw = _raw(path, where)
    return _of_transformers(*_timed(lambda: PreTrainedTokenizerFast(tokenizer_object=raw)), raw=raw, bare=True)


def _of_gpt2_files(vocab: Path, merges: Path) -> Subject:
    """Open a byte-level dictionary and its merges with GPT-2's pattern, as GPT2Tokenizer does."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    ids = read_json(vocab)
    lines = merges.read_text(encoding="utf-8").splitlines()
    pairs: Any = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    if not isinstance(ids, dict) or any(len(pair) != 2 for pair in pairs):
        raise InputError(f"{vocab} and {merges.name} are no byte-level dictionary", "GPT-2's two files", "Copy or download them again")
    try:
        backend: Any = Tokenizer(models.BPE(vocab=ids, merges=pairs))
    except Exception as error:  # the library raises plain Exception for a merge whose parts are not in the vocabulary
        raise InputError(f"{vocab} and {merges.name} do not belong together ({error})", "GPT-2's two files", "Copy them again") from error
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    special = [AddedToken(name, normalized=False, special=True) for name in ids if re.fullmatch(r"<\|.+\|>", name)]
    backend.add_special_tokens(special)
    flags: list[Flag] = []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(vocab, Path(folder) / "vocab.json")
        shutil.copy(merges, Path(folder) / "merges.txt")
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
        loaded = _auto(Path(folder), flags)
    if loaded is None:
        from transformers import PreTrainedTokenizerFast

        return _of_transformers(PreTrainedTokenizerFast(tokenizer_object=backend), 0.0, raw=backend, flags=flags)
    return _of_transformers(*loaded, raw=backend, flags=flags)


def _of_transformers(
    tokenizer: PreTrainedTokenizerFast, load_seconds: float, raw: Any, flags: list[Flag] | None = None, bare: bool = False
) -> Subject:
    """Open what transformers has loaded; `raw` is the same file in the tokenizers library, None for a hub id; `bare`: it names no class."""
    backend: Any = tokenizer.backend_tokenizer
    content = json.loads(backend.to_str())
    model = content["model"]
    byte_level = "ByteLevel" in json.dumps([content["pre_tokenizer"], content["decoder"]])
    flags = [] if flags is None else flags
    if content["decoder"] is None and byte_level:
        detail = "the tokenizer.json names no decoder, so that decoding joins pieces with spaces; GPT2Tokenizer brings its own"
        flags.append(_flag("no decoder", detail))
    vocab: dict[str, int] = model["vocab"] if isinstance(model["vocab"], dict) else {p[0]: n for n, p in enumerate(model["vocab"])}
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    letters = {name for name in added if LETTER_TOKEN.fullmatch(name)}
    unknown = model.get("unk_token") or next((name for name, number in vocab.items() if number == model.get("unk_id")), None)
    pieces = {
        piece: number
        for piece, number in vocab.items()
        if piece not in added and piece != unknown and not (model.get("byte_fallback") and _BYTE_TOKEN.fullmatch(piece))
    }
    inverse = {letter: byte for byte, letter in byte_characters().items()} if byte_level else None
    token_bytes = {number: _json_bytes(piece, inverse, model) for piece, number in vocab.items() if piece not in added and piece != unknown}
    token_bytes.update({added[name]: name.encode() for name in letters})
    encode = _encoder(tokenizer)
    native = None if raw is None else _same_or_own(tokenizer, raw, encode)
    trace = _json_trace(tokenizer, model, pieces, token_bytes)
    return Subject(
        library="tokenizers",
        entries=[*vocab.items(), *((name, number) for name, number in added.items() if vocab.get(name) != number)],
        pieces=pieces,
        specials={name: number for name, number in added.items() if name not in letters},
        token_bytes=token_bytes,
        encode=encode,
        decode=_decoder(tokenizer),
        trace=trace,
        fingerprint=vocabulary_fingerprint(tokenizer),
        load_seconds=load_seconds,
        transformers=native,
        transformers_ids=tokenizer.get_vocab(),
        space_mark=BYTE_SPACE if byte_level else SPACE_MARK,
        model_type=model["type"],
        gpt2_trace=_gpt2_trace(trace, content, pieces, token_bytes) if bare else None,
        protein_blocks=_protein_blocks(Path(tokenizer.name_or_path)),
        flags=flags,
    )


def _json_bytes(piece: str, inverse: Mapping[str, int] | None, model: Mapping[str, Any]) -> bytes:
    """Return the text of a piece of a tokenizer.json: byte letters, a space mark, or the mark of WordPiece's inner pieces."""
    if inverse is not None:
        return bytes(inverse[letter] for letter in piece) if all(letter in inverse for letter in piece) else piece.encode()
    if model.get("byte_fallback") and (value := _BYTE_TOKEN.fullmatch(piece)):
        return bytes([int(value[1], 16)])
    prefix, suffix = model.get("continuing_subword_prefix"), model.get("end_of_word_suffix")
    text = piece.removeprefix(prefix or "").removesuffix(suffix or "")
    return text.replace(SPACE_MARK, " ").encode()


def _json_trace(
    tokenizer: PreTrainedTokenizerFast, model: Mapping[str, Any], pieces: Mapping[str, int], token_bytes: Mapping[int, bytes]
) -> Trace:
    """Return what a piece becomes: its merges or best path, then the pre-tokenizer."""
    backend: Any = tokenizer.backend_tokenizer
    affixed = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    if model["type"] == "BPE" and not affixed:
        merges = {_pair(merge): place for place, merge in enumerate(model["merges"])}
        return _trace_by(partial(reference_encode, rank=lambda left, right: merges.get((left, right))), backend, pieces, token_bytes)
    if model["type"] == "Unigram":
        return _trace_by(lambda word: [token.value for token in backend.model.tokenize(word)], backend, pieces, token_bytes)
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""

    def bare(piece: str) -> str:
        return piece.removeprefix(prefix).removesuffix(suffix)

    return _trace_by(lambda word: [word], backend, pieces, token_bytes, bare)  # the longest match: every piece matches itself


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right


def _gpt2_trace(trace: Trace, content: Mapping[str, Any], pieces: Mapping[str, int], token_bytes: Mapping[int, bytes]) -> Trace | None:
    """Return `trace` under GPT-2's pattern, for a byte-level dictionary that has no pattern of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    own = content["pre_tokenizer"]
    if content["model"]["type"] != "BPE" or own is None or own["type"] != "ByteLevel" or own["use_regex"]:
        return None
    pattern: Any = Tokenizer(models.BPE())
    pattern.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    words = _trace_by(lambda word: [word], pattern, pieces, token_bytes)

    def under_gpt2(piece: str) -> list[str]:
        merged = trace(piece)
        return words(piece) if merged == [piece] else merged

    return under_gpt2


def _raw(path: Path, where: Path | None = None) -> Any:
    """Return a tokenizer.json in the tokenizers library, or one line that says why not."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises plain Exception, the decoding of the text ValueError
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{where or path} holds no readable tokenizer ({reason})", "a tokenizer.json", "Write it again") from error


def _same_or_own(tokenizer: PreTrainedTokenizerFast, raw: Any, encode: Encode) -> Encode:
    """Return how the tokenizers library encodes by the file alone; `encode` itself where transformers runs the file as it is."""
    from transformers import PreTrainedTokenizerFast

    alone = PreTrainedTokenizerFast(tokenizer_object=raw)
    return encode if vocabulary_fingerprint(alone) == vocabulary_fingerprint(tokenizer) else _encoder(alone)


# for every format


def _trace_by(
    split: Trace, backend: Any, pieces: Mapping[str, int], token_bytes: Mapping[int, bytes], bare: Callable[[str], str] = str
) -> Trace:
    """Return what a piece becomes under a word's own split, then under a backend's normalizer and pre-tokenizer.

    `bare` takes the marks off that a piece has and a word has not (WordPiece's ##).
    """
    words = _words(backend)

    def trace(piece: str) -> list[str]:
        merged = split(piece)
        if merged != [piece]:
            return merged
        try:
            text = token_bytes[pieces[piece]].decode()
        except UnicodeDecodeError:  # a part of a character: its surroundings decide, and some keep it whole
            return [piece]
        if any(bare(piece) in word for before, after in _NEIGHBOURS for word in words(before + text + after)):
            return [piece]
        return words(text)

    return trace


def _words(backend: Any) -> Callable[[str], list[str]]:
    """Return how a backend normalizes a text and cuts it into words, before any merge."""
    normalizer, pre_tokenizer = backend.normalizer, backend.pre_tokenizer

    def words(text: str) -> list[str]:
        text = normalizer.normalize_str(text) if normalizer else text
        return [word for word, _ in pre_tokenizer.pre_tokenize_str(text)] if pre_tokenizer else [text]

    return words


def _encoder(tokenizer: PreTrainedTokenizerFast) -> Encode:
    return lambda texts: encode_batch(tokenizer, texts)


def _decoder(tokenizer: PreTrainedTokenizerFast) -> Callable[[list[int]], str]:
    return lambda ids: decode(tokenizer, ids)


def _loaded_by_transformers(
    where: Path, path: Path, class_name: str | None, flags: list[Flag]
) -> tuple[PreTrainedTokenizerFast, float] | None:
    """Return what AutoTokenizer makes of a native file: of its folder, or of the file alone under the class that suits it."""
    if where.is_dir() and any((where / name).is_file() for name in (JSON_NAME, "tokenizer_config.json")):
        return _auto(where, flags)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, Path(folder) / NATIVE_NAME)
        if class_name is not None:
            (Path(folder) / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": class_name}))
        return _auto(Path(folder), flags)


def _auto(folder: Path, flags: list[Flag]) -> tuple[PreTrainedTokenizerFast, float] | None:
    """Return AutoTokenizer's tokenizer of a folder and its load time; a flag says why there is none."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of its own detours on the way to a tiktoken file
    try:
        return _timed(lambda: _auto_or_error(folder))
    except InputError as error:
        flags.append(_flag("transformers cannot load it", error.found))
        return None
    finally:
        logging.set_verbosity(level)


def _auto_or_error(folder: Path) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        loaded = AutoTokenizer.from_pretrained(str(folder))
    except Exception as error:  # the library raises OSError, ValueError, KeyError and plain Exception, each for some bad file
        raise InputError(" ".join(str(error).split())[:200]) from error
    if not isinstance(loaded, PreTrainedTokenizerFast):
        raise InputError(f"it makes a {type(loaded).__name__} of it, which has no tokenizer.json")
    return loaded


def _fingerprint_of(where: Path, loaded: PreTrainedTokenizerFast | None, content: Any) -> str:
    """Return the fingerprint under which the package knows the tokenizer; of the file's content, where the package cannot run it."""
    if loaded is not None and (where / JSON_NAME).is_file():
        return vocabulary_fingerprint(loaded)
    try:
        return vocabulary_fingerprint(open_vocabulary(where).tokenizer())
    except InputError:
        return fingerprint(content)


def _protein_blocks(folder: Path) -> list[range] | None:
    """Return the ids that a folder's manifest names as pieces of proteins; None where it names no blocks."""
    if not (folder / MANIFEST_NAME).is_file():
        return None
    try:
        manifest = read_json(folder / MANIFEST_NAME)
    except InputError:
        return None
    steps = manifest.get("steps") if isinstance(manifest, dict) else None
    if not isinstance(steps, list) or not steps:
        return None
    known = [step for step in steps if isinstance(step, dict) and {"kind", "first_id", "size"} <= step.keys()]
    return [range(step["first_id"], step["first_id"] + step["size"]) for step in known if step["kind"] == "protein"]


def _flag(fault: str, detail: str) -> Flag:
    return {"fault": fault, "detail": detail}
