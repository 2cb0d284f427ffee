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
    "corpus": "FASTA, FASTQ and text -> documents per language",
    "vocab": "documents -> DNA and protein pieces -> tokenizer spliced into the base's",
    "pack": "documents + tokenizer -> packed token rows",
    "pretrain": "base model + rows -> adapter (or a model from scratch); many processes: deepspeed launch/pretrain.py",
    "instruct": "task tables -> Alpaca instructions (train, dev, test)",
    "sft": "adapter or model + instructions -> tuned adapter; many processes: deepspeed launch/sft.py",
    "classify": "a sequence-classification head on any model, the DNAHLM way",
    "evaluate": "model + held-out instructions -> table with intervals and baselines",
    "chat": "ask a model questions in the terminal",
    "export": "base + adapter -> one checked Hugging Face folder",
    "run": "all stages from one YAML, resumed where it stopped",
    "demo": "the whole route on simulated genes, no GPU, no network",
    "doctor": "what this machine has, and what will not work on it",
}
WALKS = ("run", "demo")  # their output_dir holds the outputs of other stages


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage; return the exit code (0 done, 2 something the user can mend, 130 interrupted)."""
    arguments = [item for item in (sys.argv[1:] if argv is None else argv) if not re.match(r"--local[_-]rank(=|$)", item)]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"llama-gene {runtime.package_version()}")
        return 0
    stage = arguments[0]
    runtime.set_library_switches()
    try:
        if stage not in STAGES:
            raise errors.ConfigError(f"there is no stage '{stage}'", f"one of {', '.join(STAGES)}", errors.did_you_mean(stage, STAGES))
        from llama_gene import config

        recipe = importlib.import_module(f"llama_gene.recipes.{stage}")
        settings = config.parse(stage, recipe.Config, arguments[1:], STAGES[stage])
        if stage not in WALKS and getattr(settings, "output_dir", None) is not None:
            runtime.check_output(settings.output_dir, stage)
        recipe.run(settings)
    except (errors.LlamaGeneError, PermissionError) as error:
        line = str(error) if isinstance(error, errors.LlamaGeneError) else f"{error.filename}: {error.strerror}. Use a path that is yours."
        print(f"llama-gene {stage}: {' '.join(line.split())}", file=sys.stderr)
        return 2
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
    lines += [f"  {name:<{width}}  {text}" for name, text in STAGES.items()]
    lines += ["", "`llama-gene STAGE --help` lists a stage's keys; `--print_config` prints them as YAML.", "Start with: llama-gene demo"]
    return "\n".join(lines)


def script(stage: str) -> NoReturn:
    """Run `stage` with this process's arguments and exit: what the files of launch/ call under a launcher."""
    sys.exit(main([stage, *sys.argv[1:]]))


if __name__ == "__main__":
    sys.exit(main())
