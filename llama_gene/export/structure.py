"""Check that a model folder, ours or from elsewhere, is one: weights, config, tokenizer and chat template agree. No weight is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from llama_gene.errors import InputError, MismatchError
from llama_gene.export.plan import NotStreamable, empty_model, table_names
from llama_gene.export.tensors import TensorFolder, refuse_pickles
from llama_gene.runtime import read_json
from llama_gene.tokenization.tokenizer import load_tokenizer


@dataclass(frozen=True)
class Structure:
    """What a folder is made of."""

    architecture: str
    tensors: int
    tokens: int
    rows: int
    tied: bool

    @property
    def padding_rows(self) -> int:
        """Rows of the embedding that no token has."""
        return self.rows - self.tokens


def check_structure(folder: Path) -> Structure:
    """Return what a folder is made of.

    Raises InputError for pickles, code of its own, a missing or cut file, a folder without a chat template; MismatchError where tensors,
    config, tokenizer and special ids do not agree.
    """
    if not folder.is_dir() or not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json", "a Hugging Face model folder", "Check the path")
    refuse_pickles(folder)
    raw = read_json(folder / "config.json")
    if "auto_map" in raw or any(folder.glob("*.py")):
        raise InputError(f"{folder} needs code of its own", "a model that transformers knows", "Code from a model folder is never run")
    try:
        config = AutoConfig.from_pretrained(folder)
        model = empty_model(config)
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise InputError(f"{folder / 'config.json'}: {reason}", "the config of a causal language model", "Check the folder") from error
    tensors = TensorFolder(folder)
    tokenizer: Any = load_tokenizer(folder)
    if not tokenizer.chat_template:
        raise InputError(f"{folder} has no chat template", "the prompt as chat_template.jinja", "Copy it from the tokenizer's folder")
    rows = _check_tensors(folder, tensors, model)
    tokens = len(tokenizer)
    size = int(config.get_text_config().vocab_size)
    if rows < tokens or size != rows:
        raise MismatchError(f"{folder}: {rows:,} embedding rows, vocab_size {size:,}, {tokens:,} tokens", "a row for each token")
    _check_special_ids(folder, config, tokenizer)
    return Structure(type(model).__name__, len(tensors.entries), tokens, rows, bool(config.tie_word_embeddings))


def _check_tensors(folder: Path, tensors: TensorFolder, model: Any) -> int:
    """Return the rows of the embedding; raise where a tensor is missing or has another shape than the config says."""
    try:
        head = table_names(model)[1]
    except NotStreamable:  # a head with a bias
        head = ""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        expected.pop(head, None)
    missing = sorted(set(expected) - set(tensors))
    if missing and set(tensors) <= set(expected) | {head}:
        raise InputError(f"{folder} lacks {missing[0]}", f"every tensor of {type(model).__name__}", "Copy the folder again")
    # Other names than the model's: its files keep them otherwise (experts apart), and transformers puts them together when it loads them.
    for name in set(expected) & set(tensors):
        if tensors.shape(name) != expected[name]:
            raise MismatchError(f"{folder}: {name} has shape {tensors.shape(name)}", f"{expected[name]}, as config.json says")
    return int(model.get_input_embeddings().weight.shape[0])


def _check_special_ids(folder: Path, config: Any, tokenizer: Any) -> None:
    """Raise MismatchError where config or generation config end a text with another id than the tokenizer does."""
    generation = read_json(folder / "generation_config.json") if (folder / "generation_config.json").is_file() else {}
    for name in ("bos_token_id", "eos_token_id"):
        own = getattr(tokenizer, name)
        for file, said in (("config.json", getattr(config, name, None)), ("generation_config.json", generation.get(name))):
            ids = said if isinstance(said, list) else [said]
            if said is not None and own is not None and own not in ids:
                raise MismatchError(f"{folder / file}: {name} {said}", f"{own}, the tokenizer's", "Mend the file")
