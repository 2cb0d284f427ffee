"""Load a tokenizer, encode and decode with it, name its vocabulary, write its folder: what the rest of the package uses.

A *tokenizer folder* holds `tokenizer.json` and `tokenizer_config.json` (AutoTokenizer loads them with no flag), the native
`tokenizer.model` where the format has one, `chat_template.jinja` and a manifest. A base may also be a bare `tokenizer.model`, told
apart by its content, never by its name, or anything that AutoTokenizer knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene.errors import InputError
from llama_gene.runtime import fingerprint, read_json
from llama_gene.tokenization.bpe import Vocabulary
from llama_gene.tokenization.json_splice import JsonVocabulary
from llama_gene.tokenization.sentencepiece_splice import SentencePieceVocabulary
from llama_gene.tokenization.tiktoken_splice import LLAMA3_SPECIALS, NUM_SPECIALS, TiktokenVocabulary, is_rank_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NATIVE_NAME = "tokenizer.model"
JSON_NAME = "tokenizer.json"
NUM_TEXTS_A_BATCH = 1024


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
    ids: list[list[int]] = []
    with _plain_text(tokenizer) as backend:
        for start in range(0, len(texts), NUM_TEXTS_A_BATCH):
            batch = list(texts[start : start + NUM_TEXTS_A_BATCH])
            ids += [encoding.ids for encoding in backend.encode_batch_fast(batch, add_special_tokens=False)]
    return ids


def decode(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """Return the text of ids, special tokens left out: `decode(tokenizer, encode_text(tokenizer, text)) == text`."""
    text: str = tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=True)
    return text


def vocabulary_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return 16 digits that name everything that decides a text's ids; the chat template has no part in it.

    Pieces, ids, merges in order, byte fallback and whole-word rule, normalizer, pre-tokenizer, special tokens.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    added = sorted((token["id"], token["content"], token["special"]) for token in content["added_tokens"])
    return fingerprint([content["model"], content["normalizer"], content["pre_tokenizer"], added])


def open_vocabulary(base: Path | str) -> Vocabulary:
    """Return the vocabulary of a base for splicing: a `tokenizer.model` of either kind, a folder, or a hub id.

    Where a folder has both a `tokenizer.model` and a `tokenizer.json`, the two must agree on every id: a pad token that only the
    latter holds would otherwise share its id with the first new piece. Raises InputError for what is no BPE tokenizer.
    """
    path = Path(base)
    if not path.exists() and _is_hub_id(base):
        path = _hub_folder(str(base))
    native = path / NATIVE_NAME if path.is_dir() else path
    if not native.is_file():
        return JsonVocabulary(_auto_tokenizer(path), str(base))
    in_json = _json_ids(path / JSON_NAME) if path.is_dir() and (path / JSON_NAME).is_file() else {}
    if native.name == JSON_NAME:
        return JsonVocabulary(_auto_tokenizer(native.parent), str(native))
    vocabulary: Vocabulary
    if is_rank_file(native):
        vocabulary = TiktokenVocabulary.read(native)
        names = {number: name for name, number in in_json.items()}
        first = vocabulary.num_base
        specials = [names.get(first + offset, LLAMA3_SPECIALS[offset]) for offset in range(NUM_SPECIALS)]
        vocabulary = TiktokenVocabulary(vocabulary.ranks, specials)
    else:
        vocabulary = SentencePieceVocabulary.read(native)
    if in_json:
        ours = vocabulary.ids()
        for name, number in in_json.items():
            if ours.get(name) != number:
                raise InputError(
                    f"{path}: '{name}' has id {number} in {JSON_NAME} and {ours.get(name, 'none')} in {NATIVE_NAME}",
                    "two files that agree",
                    f"To splice without it give {native} itself as base",
                )
    return vocabulary


def write_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path, chat_template: str | None = None) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and, where given, `chat_template.jinja` into a folder.

    The class is written as PreTrainedTokenizerFast, which runs the tokenizer.json as it is: under the name LlamaTokenizer,
    transformers would build a pipeline of its own. BOS is added by the tokenizer.json's post-processor; an `add_bos_token` in the
    config would make transformers replace it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.backend_tokenizer.save(str(folder / JSON_NAME))
    names = {f"{name}_token": getattr(tokenizer, f"{name}_token") for name in ("bos", "eos", "unk", "pad")}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: token for name, token in names.items() if token is not None},
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")


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
        if not any((path / name).is_file() for name in (JSON_NAME, "tokenizer_config.json", "vocab.json")):
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
    return isinstance(source, str) and not source.startswith((".", "/", "~")) and source.count("/") <= 1


def _no_hub(source: Path | str, error: Exception) -> InputError:
    return InputError(
        f"'{source}' is no folder here, and the hub does not give it ({type(error).__name__})",
        _EXPECTED,
        "Gated: set HF_TOKEN. Offline: set HF_HOME to a cache or HF_ENDPOINT to a mirror, or give a local folder. "
        "Ungated alternative: huggyllama/llama-7b",
    )


_EXPECTED = "a tokenizer folder, a tokenizer.model or a hub id"


def _json_ids(path: Path) -> dict[str, int]:
    """Return every piece and added token of a tokenizer.json with its id."""
    content = read_json(path)
    vocab = content.get("model", {}).get("vocab")
    if not isinstance(vocab, dict):
        raise InputError(f"{path} is not a BPE tokenizer", "a BPE tokenizer.json", "Use another base")
    return {**vocab, **{token["content"]: token["id"] for token in content.get("added_tokens", [])}}
