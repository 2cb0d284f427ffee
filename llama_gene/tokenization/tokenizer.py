"""Load a tokenizer, encode and decode with it, name its vocabulary, write its folder: what the rest of the package uses.

A *tokenizer folder* holds `tokenizer.json` and `tokenizer_config.json` (AutoTokenizer loads them with no flag), the native
`tokenizer.model` where the format has one, `chat_template.jinja` and a manifest. A base may also be a bare `tokenizer.model`, told
apart by its content, never by its name, or anything that AutoTokenizer knows.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from llama_gene.errors import InputError
from llama_gene.runtime import fingerprint, read_json, write_json, write_text
from llama_gene.tokenization.bpe import SPACE_MARK, Vocabulary
from llama_gene.tokenization.json_splice import JsonVocabulary
from llama_gene.tokenization.sentencepiece_splice import SentencePieceVocabulary
from llama_gene.tokenization.tiktoken_splice import TiktokenVocabulary, is_rank_file

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast

    from llama_gene.tokenization.encoder import Encoder

NATIVE_NAME = "tokenizer.model"
JSON_NAME = "tokenizer.json"
NUM_TEXTS_A_BATCH = 1024
LETTERS_WORTH_TABLES = 2_000_000  # 0.5 s of `tokenizers`, as long as the tables of 62,080 pieces take


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a folder (ours or any Hugging Face folder), of a bare `tokenizer.model`, or of a hub id.

    A folder that has only a `tokenizer.model` is built by us: AutoTokenizer would give it no word-start mark and no BOS.
    Raises InputError, in one line, where there is none.
    """
    path = Path(folder)
    if path.is_file() or (path.is_dir() and not (path / JSON_NAME).is_file() and (path / NATIVE_NAME).is_file()):
        return open_vocabulary(path).tokenizer()
    return _auto_tokenizer(folder)


def encode_text(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Return a text's ids; no BOS or EOS is added, and text that spells a special token stays text."""
    with _plain_text(tokenizer) as backend:
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    return ids


def encode_batch(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of many texts, as `encode_text` gives each, several times as fast as one by one."""
    return [ids.tolist() for ids in encode_arrays(tokenizer, texts)]


def encode_arrays(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    """Return what `encode_batch` returns, one int32 array a text: what many documents are packed from.

    A tokenizer that has been asked for LETTERS_WORTH_TABLES gets tables of its own (encoder.py), which give the same ids faster.
    """
    ids: list[NDArray[np.int32] | None] = [None] * len(texts)
    encoder = _encoder(tokenizer, sum(map(len, texts)))
    if encoder is not None:
        taken = [number for number, text in enumerate(texts) if encoder.takes(text)]
        for number, row in zip(taken, encoder.encode([texts[number] for number in taken]), strict=True):
            ids[number] = row
    left = [number for number, row in enumerate(ids) if row is None]
    with _plain_text(tokenizer) as backend:
        for start in range(0, len(left), NUM_TEXTS_A_BATCH):
            numbers = left[start : start + NUM_TEXTS_A_BATCH]
            batch = backend.encode_batch_fast([texts[number] for number in numbers], add_special_tokens=False)
            for number, encoding in zip(numbers, batch, strict=True):
                ids[number] = np.array(encoding.ids, np.int32)
    return [row for row in ids if row is not None]


def decode(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """Return the text of ids, special tokens left out: `decode(tokenizer, encode_text(tokenizer, text)) == text`."""
    text: str = tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=True)
    return text


def token_bytes(tokenizer: PreTrainedTokenizerFast) -> NDArray[np.int32]:
    """Return how many bytes of text (UTF-8) each id stands for; special tokens stand for none.

    A word-start mark (SentencePiece) is a space, also the one that is put before a text: a document of DNA has a byte too many.
    """
    ids = range(len(tokenizer))
    special = set(tokenizer.all_special_ids)
    in_bytes = '"ByteLevel"' in json.dumps(_content(tokenizer)["decoder"])
    sizes = np.zeros(len(tokenizer), np.int32)
    for number, piece in zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True):
        if number in special or piece is None:
            continue
        if in_bytes:
            sizes[number] = len(piece)  # a letter a byte
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", piece):
            sizes[number] = 1
        else:
            sizes[number] = len(piece.replace(SPACE_MARK, " ").encode("utf-8", "surrogatepass"))
    return sizes


def vocabulary_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return 16 digits that name everything that decides a text's ids; the chat template has no part in it.

    Pieces, ids, merges in order, byte fallback and whole-word rule, normalizer, pre-tokenizer, special tokens.
    """
    content = _content(tokenizer)
    added = sorted((token["id"], token["content"], token["special"]) for token in content["added_tokens"])
    return fingerprint([content["model"], content["normalizer"], content["pre_tokenizer"], added])


def open_vocabulary(base: Path | str) -> Vocabulary:
    """Return the vocabulary of a base for splicing: a `tokenizer.model` of either kind, a folder, or a hub id.

    Where a folder has both a `tokenizer.model` and a `tokenizer.json`, the two must agree on every id: a pad token that only the
    latter holds would otherwise share its id with the first new piece. The pattern of a rank file (isolated or not) and its namespaced
    letters come from the tokenizer.json beside it; a bare rank file has LLaMA-3's pattern. Raises InputError for what is no BPE tokenizer.
    """
    path = Path(base)
    if not path.exists() and _is_hub_id(base):
        path = _hub_folder(str(base))
    native = path / NATIVE_NAME if path.is_dir() else path
    if not native.is_file():
        return JsonVocabulary(_auto_tokenizer(path), str(base))
    if native.name == JSON_NAME:
        return JsonVocabulary(_auto_tokenizer(native.parent), str(native))
    content = _read_bpe(path / JSON_NAME) if path.is_dir() and (path / JSON_NAME).is_file() else None
    if is_rank_file(native):
        ranks = TiktokenVocabulary.read(native, content)
        _check_ids(path, content, ranks.ids())
        return ranks
    model = SentencePieceVocabulary.read(native)
    _check_ids(path, content, model.ids_in_json())
    return model


def write_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path, chat_template: str | None = None) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and, where given, `chat_template.jinja` into a folder.

    The class is written as PreTrainedTokenizerFast, which runs the tokenizer.json as it is: under the name LlamaTokenizer,
    transformers would build a pipeline of its own. BOS is added by the tokenizer.json's post-processor; an `add_bos_token` in the
    config would make transformers replace it. Raises InputError where the folder cannot be written.
    """
    names = {f"{name}_token": getattr(tokenizer, f"{name}_token") for name in ("bos", "eos", "unk", "pad")}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: token for name, token in names.items() if token is not None},
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    try:
        write_text(folder / JSON_NAME, tokenizer.backend_tokenizer.to_str(pretty=True))
        write_json(folder / "tokenizer_config.json", config)
        if chat_template is not None:
            write_text(folder / "chat_template.jinja", chat_template)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}", "a folder that you may write to", "Choose another one") from error


def _content(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the tokenizer.json; the garbage collector, which 418,000 merges wake again and again, sleeps meanwhile (0.95 -> 0.16 s)."""
    text = tokenizer.backend_tokenizer.to_str()
    was_awake = gc.isenabled()
    gc.disable()
    try:
        content: dict[str, Any] = json.loads(text)
    finally:
        if was_awake:
            gc.enable()
    return content


@dataclass
class _Tables:
    """How much a tokenizer has encoded, and the encoder that it was worth making."""

    about: str  # the state that the encoder was made of
    letters: int = 0
    made: bool = False
    encoder: Encoder | None = None


_TABLES: WeakKeyDictionary[PreTrainedTokenizerFast, _Tables] = WeakKeyDictionary()


def _encoder(tokenizer: PreTrainedTokenizerFast, num_letters: int) -> Encoder | None:
    """Return the tokenizer's encoder, None where there is none or it would cost more time than it saves."""
    backend: Any = tokenizer.backend_tokenizer
    model = backend.model
    flags = [getattr(model, name, None) for name in ("dropout", "unk_token", "byte_fallback", "ignore_merges")]
    sizes = [backend.get_vocab_size(), len(backend.get_added_tokens_decoder())]
    about = repr([sizes, backend.normalizer, backend.pre_tokenizer, flags])  # microseconds; the whole JSON: 0.1 s
    tables = _TABLES.get(tokenizer)
    if tables is None or tables.about != about:
        tables = _TABLES[tokenizer] = _Tables(about)
    tables.letters += num_letters
    if not tables.made and tables.letters >= LETTERS_WORTH_TABLES:
        from llama_gene.tokenization.encoder import read_encoder

        tables.encoder, tables.made = read_encoder(_content(tokenizer)), True
    return tables.encoder


@contextmanager
def _plain_text(tokenizer: PreTrainedTokenizerFast) -> Iterator[Any]:
    """Give the backend with special tokens read as text, and with no cut or padding left over from an earlier call."""
    backend: Any = tokenizer.backend_tokenizer
    before = backend.encode_special_tokens
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    backend.encode_special_tokens = True
    try:
        yield backend
    finally:
        backend.encode_special_tokens = before


def _auto_tokenizer(source: Path | str) -> PreTrainedTokenizerFast:
    """Return AutoTokenizer's tokenizer of a folder or hub id, or one line that says why there is none."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    path = Path(source)
    if path.is_dir():
        if not any((path / name).is_file() for name in (JSON_NAME, "vocab.json", NATIVE_NAME)):  # a config alone gives an empty one
            raise InputError(f"{path} holds no tokenizer", f"{JSON_NAME} or {NATIVE_NAME}", "Check the path")
    elif not _is_hub_id(source):
        raise InputError(f"{path} does not exist", _EXPECTED, "Check the path")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source))
    except Exception as error:  # the library raises OSError, ValueError, KeyError and plain Exception, each for some bad file
        if not path.is_dir():
            raise _no_hub(source, error) from error
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path} holds no readable tokenizer ({reason})", "a Hugging Face tokenizer", "Write it again") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(f"{source} is a {type(tokenizer).__name__}", "a tokenizer with a tokenizer.json", "Convert it first")
    return tokenizer


def _hub_folder(name: str) -> Path:
    """Return the local folder of a hub id's tokenizer files; its own `tokenizer.model` is better than a conversion of it."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["tokenizer*", "special_tokens_map.json", "vocab.json", "merges.txt"]))
    except Exception as error:  # HTTP errors, gated repositories, no cache: none of them share a base but Exception
        raise _no_hub(name, error) from error


def _is_hub_id(source: Path | str) -> bool:
    """Return whether a name may be one of the hub: ORGANISATION/MODEL, and no file's name."""
    if not isinstance(source, str) or not source or source.startswith((".", "/", "~")):
        return False
    return source.count("/") <= 1 and not source.endswith((".model", ".json", ".tiktoken", ".gz"))


def _no_hub(source: Path | str, error: Exception) -> InputError:
    return InputError(
        f"'{source}' is no folder here, and the hub does not give it ({type(error).__name__})",
        _EXPECTED,
        "Gated: set HF_TOKEN. Offline: set HF_HOME to a cache or HF_ENDPOINT to a mirror, or give a local folder. "
        "Ungated alternative: huggyllama/llama-7b",
    )


_EXPECTED = "a tokenizer folder, a tokenizer.model or a hub id"


def _read_bpe(path: Path) -> dict[str, Any]:
    """Return the content of a tokenizer.json of BPE type."""
    content: dict[str, Any] = read_json(path)
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise InputError(f"{path} is not a BPE tokenizer", "a BPE tokenizer.json", "Use another base")
    return content


def _check_ids(folder: Path, content: dict[str, Any] | None, ours: Mapping[str, int]) -> None:
    """Raise InputError where a tokenizer.json gives a piece or added token another id than the tokenizer.model beside it."""
    if content is None:
        return
    theirs = {**content["model"]["vocab"], **{token["content"]: token["id"] for token in content.get("added_tokens") or []}}
    for name in [*theirs, *ours]:
        if ours.get(name) != theirs.get(name):
            raise InputError(
                f"{folder}: '{name}' has id {theirs.get(name, 'none')} in {JSON_NAME} and {ours.get(name, 'none')} in {NATIVE_NAME}",
                "two files that agree",
                f"To splice without it give {folder / NATIVE_NAME} itself as base",
            )
