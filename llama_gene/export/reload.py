"""Read a model folder back as a stranger would, in a process that has done nothing else: AutoModelForCausalLM, AutoTokenizer, no flag.

    python -m llama_gene.export.reload FOLDER WORK 0        # reads WORK/texts.json, writes WORK/facts.json and WORK/logits.safetensors

It imports nothing of this package unless the weights are to be read layer by layer (1 instead of 0).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def read(folder: str, texts: list[str], lazy: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (rows, columns, vocab_size, tokens, limit, ids) and the float32 logits (T, V) of each text, by its number."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any
    if lazy:
        from llama_gene.export.lazy import lazy_model
        from llama_gene.export.plan import table_names
        from llama_gene.export.tensors import TensorFolder

        tensors, config = TensorFolder(Path(folder)), AutoConfig.from_pretrained(folder)
        aliases: dict[str, str] = {}
        model = lazy_model(config, lambda name: tensors.read(aliases.get(name, name)))
        embedding, head = table_names(model)
        if config.tie_word_embeddings:
            aliases[head] = embedding
    else:
        model = AutoModelForCausalLM.from_pretrained(folder).eval().float()
    limit = getattr(model.config, "max_position_embeddings", None) or 1024
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    ids = [[*start, *tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]][:limit] for text in texts]
    logits: dict[str, Any] = {}
    with torch.inference_mode():
        if lazy:  # one pass for all texts: each reads every weight
            longest = max(map(len, ids))
            batch = torch.tensor([row + [row[-1]] * (longest - len(row)) for row in ids])
            together = model(input_ids=batch, use_cache=False).logits
            logits = {str(number): together[number, : len(row)].contiguous() for number, row in enumerate(ids)}
        else:
            for number, row in enumerate(ids):
                logits[str(number)] = model(input_ids=torch.tensor([row]), use_cache=False).logits[0].contiguous()
    facts = {
        "rows": int(model.get_input_embeddings().weight.shape[0]),
        "columns": int(model.get_output_embeddings().weight.shape[0]),
        "vocab_size": int(model.config.get_text_config().vocab_size),
        "tokens": len(tokenizer),
        "limit": limit,
        "ids": ids,
    }
    return facts, logits


def main() -> None:
    """Read, and write what was found."""
    from safetensors.torch import save_file

    folder, work, lazy = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "1"
    facts, logits = read(folder, json.loads((work / "texts.json").read_text(encoding="utf-8")), lazy)
    save_file(logits, work / "logits.safetensors")
    (work / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    main()
