"""The tool `predict_regression`: small models that `classify --head regression` trained, one name each, for `inference.tools`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError

if TYPE_CHECKING:
    from llama_gene.inference.tools import Tool

NAME = "predict_regression"


def regression_tool(folders: Mapping[str, Path], kind: str = "dna") -> Tool:
    """Return the tool over {name: folder of `classify`}, whose models read one sequence of `kind`; each is loaded at its first call.

    Raises ConfigError for no folder, what `read_manifest` raises, and InputError for a folder of another head.
    """
    from llama_gene.inference.tools import Parameter, Tool

    if not folders:
        raise ConfigError("no trained model is given", "folders of `llama-gene classify --head regression`")
    for folder in folders.values():
        head = runtime.read_manifest(folder, "classify").get("head")
        if head != "regression":
            raise InputError(f"{folder} has head {head}", "regression", "Train it with --head regression")
    loaded: dict[str, tuple[Any, Any, dict[str, Any]]] = {}

    def call(arguments: Mapping[str, str]) -> float:
        from llama_gene.recipes.classify_heads import load_head

        name = arguments["model"]
        if name not in loaded:
            loaded[name] = load_head(folders[name])
        return predict_value(*loaded[name], arguments["sequence"], kind)

    parameters = {"model": Parameter(choices=tuple(folders)), "sequence": Parameter(kind=kind)}
    return Tool(NAME, f"predicts a number of a {kind} sequence by a small trained model.", parameters, call)


def predict_value(model: Any, reader: Any, manifest: Mapping[str, Any], sequence: str, kind: str) -> float:
    """Return the value of one sequence. Raises InputError for one that the model cannot read whole."""
    from llama_gene.models.heads import classify_rows

    limit = int(manifest["config"]["max_length"])
    row = {"task": NAME, "family": "regression", "input": sequence, "sequences": [sequence], "kinds": [kind], "instruction": ""}
    encoded = reader.encode({**row, "output": "", "labels": []}, limit)
    if encoded is None or encoded.num_shortened:
        raise InputError(f"a sequence of {len(sequence):,} letters", f"one of at most {limit} tokens", "Ask about a shorter one")
    logits = classify_rows(model, [encoded.input_ids], limit)
    return float(logits[0, 0]) * float(manifest["value_deviation"]) + float(manifest["value_mean"])
