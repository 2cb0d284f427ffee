"""llama.cpp beside transformers on the same models: the same token ids, the same greedy continuation?

Three shapes of width 64, their vocabularies spliced behind the real LLaMA-2 and LLaMA-3 tokenizers, so that every base id is there:

    llama2    SentencePiece, 4 heads with 4 key heads, untied
    llama3    tiktoken, 4 heads with 2 key heads, LLaMA-3's scaled positions, untied
    llama32   tiktoken, 4 heads with 2 key heads, scaled positions, one matrix for embedding and head

Each is trained a little on DNA, proteins, English and instructions (a random model answers by chance, and nearly all of its choices are
close), exported by `llama-gene export` in float32 and written by `llama-gene export gguf` as f32. llama.cpp runs with a float32 cache and
without flash attention. 50 prompts that were not trained on (12 DNA, 12 protein, 12 English, 14 instructions) are encoded by both and
continued by 32 tokens, end-of-sequence or not. Where the two go apart, the gap between transformers' two best logits at that step says
whether it is rounding (below 1e-4: counted, allowed) or a fault. Then every continuation of transformers is read by llama.cpp, and the
largest difference of the logits is taken at each of the 32 steps. Besides, some 300 texts that break tokenizers (spaces,
unicode, the spelling of special tokens) are encoded by both.

    python benchmarks/gguf_parity.py [--steps 150] [--shapes llama2 llama3 llama32] [--dtype f32]

Needs the extra `gguf`, llama-cpp-python, and LLAMA_GENE_DATA.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

NUM_NEW = 32
ALLOWED_GAP = 1e-4


@dataclass(frozen=True)
class Parity:
    """What 50 prompts showed."""

    prompts: int
    other_ids: int
    other_continuations: int
    beyond_gap: int
    """Of those, the ones where transformers' two best logits were at least ALLOWED_GAP apart."""
    largest_difference: float
    """Of two logits after the same tokens."""
    largest_logit: float
    median_gap: float
    """Between transformers' best two."""


def greedy_transformers(model: Any, ids: Sequence[int], num_new: int = NUM_NEW) -> tuple[list[int], NDArray[np.float32]]:
    """Return the greedy continuation, end-of-sequence or not, and the logits (num_new, V) that it was taken from."""
    new, rows = [], []
    with torch.inference_mode():
        out = model(input_ids=torch.tensor([list(ids)]), use_cache=True)
        for _ in range(num_new):
            rows.append(out.logits[0, -1].float().numpy())
            new.append(int(rows[-1].argmax()))
            out = model(input_ids=torch.tensor([new[-1:]]), past_key_values=out.past_key_values, use_cache=True)
    return new, np.stack(rows)


def open_llama_cpp(path: Path, context: int = 1024) -> Any:
    """Return a llama.cpp model with a float32 cache and no flash attention."""
    import llama_cpp

    return llama_cpp.Llama(
        str(path), n_ctx=context, n_threads=1, n_threads_batch=1, type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
        flash_attn=False, verbose=False,
    )  # fmt: skip


def greedy_llama_cpp(model: Any, ids: Sequence[int], num_new: int = NUM_NEW, forced: Sequence[int] = ()) -> tuple[list[int], NDArray[Any]]:
    """Return the same from llama.cpp; with `forced`, those tokens are read instead of the best ones."""
    import llama_cpp

    new, rows = [], []
    model.reset()
    model.eval(list(ids))
    for step in range(num_new):
        pointer = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        rows.append(np.ctypeslib.as_array(pointer, shape=(model.n_vocab(),)).copy())
        new.append(int(rows[-1].argmax()))
        model.eval([forced[step] if forced else new[-1]])
    return new, np.stack(rows)


def compare(folder: Path, path: Path, prompts: Sequence[str]) -> Parity:
    """Return how far llama.cpp and transformers agree on a GGUF file and the folder that it was written from."""
    from transformers import AutoModelForCausalLM

    from llama_gene.export.gguf_check import ids_by_llama_cpp, ids_by_us

    ours, theirs = ids_by_us(folder, prompts), ids_by_llama_cpp(path, prompts)
    if theirs is None:
        raise SystemExit("llama-cpp-python is not installed")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    native = open_llama_cpp(path)
    apart, beyond, largest, highest, gaps = 0, 0, 0.0, 0.0, []
    for ids in ours:
        expected, logits = greedy_transformers(model, ids)
        best = np.sort(logits, axis=1)[:, -2:]
        gaps += (best[:, 1] - best[:, 0]).tolist()
        found, _ = greedy_llama_cpp(native, ids)
        if found != expected:
            step = next(place for place in range(NUM_NEW) if found[place] != expected[place])
            apart += 1
            beyond += best[step, 1] - best[step, 0] >= ALLOWED_GAP
        _, forced = greedy_llama_cpp(native, ids, forced=expected)
        largest = max(largest, float(np.abs(forced - logits).max()))
        highest = max(highest, float(np.abs(logits).max()))
    native.close()
    others = sum(a != b for a, b in zip(ours, theirs, strict=True))
    return Parity(len(prompts), others, apart, int(beyond), largest, highest, float(np.median(gaps)))


def prompts_of_all_kinds() -> list[str]:
    """Return 12 DNA, 12 protein, 12 English texts and 14 instructions, none of which is trained on."""
    from llama_gene.data.prompts import render_prompt, render_user
    from tests.fixtures.tiny_vocabularies import ENGLISH, SENTENCES, genes, proteins

    dna, protein = genes(19, 180, seed=100), proteins(19, 120, seed=101)
    english = [text[:60] for text in ENGLISH] + [f"{a} {b[:12]}" for a, b in zip(SENTENCES[::11], SENTENCES[5::11], strict=False)][:6]
    asked = [("Determine the core promoter detection of following dna sequence.", text) for text in dna[12:]]
    asked += [("Determine the function of following protein sequence.", text) for text in protein[12:]]
    return [*dna[:12], *protein[:12], *english[:12], *(render_prompt(render_user(*pair)) for pair in asked)]


def training_texts() -> list[str]:
    """Return texts of the four kinds."""
    from llama_gene.data.prompts import render_prompt, render_user
    from tests.fixtures.tiny_vocabularies import ENGLISH, SENTENCES, genes, proteins

    rng = random.Random(5)
    english = [" ".join(rng.sample([*SENTENCES, *ENGLISH], 6)) for _ in range(60)]
    answers = ("promoter", "Non-promoter", "kinase, transferase", "It binds DNA.")
    asked = [
        render_prompt(render_user("Determine the core promoter detection of following dna sequence.", text)) + rng.choice(answers)
        for text in genes(60, 120, seed=3)
    ]
    return [*genes(60, 300, seed=3), *proteins(60, 200, seed=4), *english, *asked]


def train_a_little(model: Any, rows: Sequence[Sequence[int]], steps: int, length: int = 128) -> float:
    """Train on one window of a random row after the other; return the mean loss of the last ten steps."""
    rng = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    model.train()
    for _ in range(steps):
        row = rng.choice(rows)
        start = rng.randrange(max(1, len(row) - length))
        ids = torch.tensor([row[start : start + length]])
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return float(np.mean(losses[-10:]))


def spliced_vocabulary(kind: str) -> Any:
    """Return 400 DNA and 400 protein pieces behind the real tokenizer of LLaMA-2 or LLaMA-3."""
    from llama_gene.tokenization.continued import N_LADDER, train_continued_pieces
    from llama_gene.tokenization.tokenizer import open_vocabulary
    from tests.fixtures.tiny_vocabularies import genes, only_dna_letters, proteins

    base = open_vocabulary(Path(os.environ["LLAMA_GENE_DATA"]) / "tokenizers" / kind / "tokenizer.model")
    dna = base.append(train_continued_pieces(base, genes(100), 400, first=N_LADDER).pieces)
    return dna.append(train_continued_pieces(dna, proteins(100), 400, forbid=only_dna_letters).pieces)


def main() -> None:
    """Train, export, write, compare; print a table."""
    from llama_gene import runtime
    from llama_gene.export.gguf_check import ids_by_llama_cpp, ids_by_us
    from llama_gene.recipes import export_gguf
    from llama_gene.tokenization.tokenizer import encode_batch
    from tests.fixtures.tiny_vocabularies import edge_texts
    from tests.gguf_folders import LLAMA3_ROPE, export_folder, small_llama

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--shapes", nargs="+", default=["llama2", "llama3", "llama32"])
    parser.add_argument("--dtype", default="f32")
    arguments = parser.parse_args()
    runtime.set_library_switches()
    torch.set_num_threads(1)
    versions = {name: runtime.package_version(name) for name in ("transformers", "torch", "gguf", "llama_cpp_python")}
    print(f"{platform.machine()}, {versions}, {arguments.steps} steps, {arguments.dtype}")
    print(
        "| shape | ids | loss | prompts with other ids | edge texts with other ids | other continuations | of these beyond 1e-4 | ", end=""
    )
    print("largest logit difference | largest logit | median top-2 gap | s |\n|---|---|---|---|---|---|---|---|---|---|---|")
    vocabularies: dict[str, Any] = {}
    for shape in arguments.shapes:
        started = time.process_time()
        kind = shape if shape == "llama2" else "llama3"
        if kind not in vocabularies:
            vocabularies[kind] = spliced_vocabulary(kind)
        vocabulary = vocabularies[kind]
        gqa = {} if shape == "llama2" else {"kv_heads": 2, "rope_parameters": LLAMA3_ROPE, "tied": shape == "llama32"}
        model = small_llama(vocabulary.num_ids, **gqa)  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(0.1)  # an initial range of 0.02: it is trained here
        loss = train_a_little(model, encode_batch(vocabulary.tokenizer(), training_texts()), arguments.steps)
        with tempfile.TemporaryDirectory() as scratch:
            folder = export_folder(model, vocabulary, Path(scratch))
            written = export_gguf.run(export_gguf.Config(model=folder, dtype=arguments.dtype, output_dir=Path(scratch) / "gguf"))
            path = next(written.glob("*.gguf"))
            found = compare(folder, path, prompts_of_all_kinds())
            edge = edge_texts()
            other_edge = sum(a != b for a, b in zip(ids_by_us(folder, edge), ids_by_llama_cpp(path, edge) or [], strict=True))
        cells = [
            shape, f"{vocabulary.num_ids:,}", f"{loss:.2f}", f"{found.other_ids} of {found.prompts}", f"{other_edge} of {len(edge)}",
            found.other_continuations, found.beyond_gap, f"{found.largest_difference:.1e}", f"{found.largest_logit:.1f}",
            f"{found.median_gap:.2f}", f"{time.process_time() - started:.0f}",
        ]  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
