"""The command line: a table of stages, each with its recipe; nothing else.

`llama-gene STAGE --config FILE [--key value]`. The first screen of help imports nothing heavy (< 0.5 s); a stage's own help and
run import its recipe. What a user can mend is printed as one line and ends with exit code 2.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from llama_gene import errors, runtime

STAGES = {
    "corpus": "genomes, proteins and text -> documents per language, held-out ones apart",
    "vocab": "documents -> DNA and protein pieces -> tokenizer spliced into the base's",
    "pack": "documents + tokenizer -> packed token rows",
    "pretrain": "base model + rows -> adapter (or a model from scratch); many processes: deepspeed launch/pretrain.py",
    "instruct": "task tables -> Alpaca instructions (train, dev, test)",
    "sft": "adapter or model + instructions -> tuned adapter; many processes: deepspeed launch/sft.py",
    "classify": "a sequence-classification head on any model, the DNAHLM way",
    "evaluate": "model + held-out instructions -> table with intervals and baselines",
    "embed": "model + sequences -> their vectors, as Parquet",
    "score": "model + sequences or variants (mutation list, VCF) -> log-likelihoods",
    "index": "annotated sequences -> an index of neighbours, for answers with evidence",
    "compare": "two models' results on the same rows -> difference with interval and p, over seeds",
    "chat": "ask a model in the terminal: questions, and tasks about sequences",
    "serve": "label probabilities for tasks over HTTP, and a chat server beside",
    "export": "base + adapter -> one checked Hugging Face folder",
    "run": "all stages from one YAML, resumed where it stopped",
    "demo": "the whole route on simulated genes, no GPU, no network",
    "doctor": "what this machine has, and what will not work on it",
}
PARTS = {
    "corpus audit": "any existing split -> its leaks between train, dev and test",
    "instruct harness": "instructions -> task files of lm-evaluation-harness",
    "export gguf": "an exported folder -> one file for llama.cpp and Ollama, and a Modelfile",
    "vocab train": "sequences -> gene pieces",
    "vocab splice": "a base + pieces -> a tokenizer folder",
    "vocab report": "what any tokenizer makes of DNA, protein and English",
}
"""Parts of a stage that are commands of their own."""
WALKS = ("run", "demo")  # their output_dir holds the outputs of other stages


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage; return the exit code (0 done or stopped by SIGTERM, 2 something the user can mend, 130 interrupted)."""
    arguments = [item for item in (sys.argv[1:] if argv is None else argv) if not re.match(r"--local[_-]rank(=|$)", item)]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"llama-gene {runtime.package_version()}")
        return 0
    stage, rest = arguments[0], arguments[1:]
    if rest and f"{stage} {rest[0]}" in PARTS:
        stage, rest = f"{stage} {rest[0]}", rest[1:]
    runtime.set_library_switches()
    runtime.exit_cleanly_on_sigterm()
    try:
        commands = {**STAGES, **PARTS}
        if stage not in commands:
            raise errors.ConfigError(f"there is no stage '{stage}'", f"one of {', '.join(STAGES)}", errors.did_you_mean(stage, STAGES))
        from llama_gene import config

        recipe = importlib.import_module(f"llama_gene.recipes.{stage.replace(' ', '_')}")
        settings = config.parse(stage, recipe.Config, rest, commands[stage])
        folder = getattr(settings, "output_dir", getattr(settings, "out", None))
        if stage not in (*WALKS, "vocab report") and folder is not None:
            runtime.check_output(folder, getattr(recipe, "STAGE", stage))
        recipe.run(settings)
    except (errors.LlamaGeneError, PermissionError) as error:
        line = str(error) if isinstance(error, errors.LlamaGeneError) else f"{error.filename}: {error.strerror}. Use a path that is yours."
        code = getattr(error, "exit_code", 2)  # 0: stopped on request
        if code or runtime.rank() == 0:
            print(f"llama-gene {stage}: {' '.join(line.split())}", file=sys.stderr)
        return code
    except KeyboardInterrupt:
        print(f"llama-gene {stage}: interrupted. The same command goes on from the last finished step.", file=sys.stderr)
        return 130
    return 0


def _overview() -> str:
    """Return the first screen of help."""
    width = max(map(len, STAGES))
    lines = [
        "llama-gene STAGE --config FILE [--key value]",
        "",
        "A language model learns to read genes. Stages, in the order of the data:",
        "",
    ]
    for name, text in STAGES.items():
        lines.append(f"  {name:<{width}}  {text}")
        lines += [f"  {'':<{width}}    {part}: {what}" for part, what in PARTS.items() if part.startswith(f"{name} ")]
    lines += ["", "`llama-gene STAGE --help` lists a stage's keys; `--print_config` prints them as YAML.", "Start with: llama-gene demo"]
    return "\n".join(lines)


def script(stage: str) -> NoReturn:
    """Run `stage` with this process's arguments and exit: what the files of launch/ call under a launcher."""
    code = main([stage, *sys.argv[1:]])
    if code == 0:
        runtime.leave_process_group()
    sys.exit(code)


if __name__ == "__main__":
    sys.exit(main())
