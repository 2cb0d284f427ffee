"""The model card: what the folder is, what it was made from, how it was trained, how well it does, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SEALED = "`manifest.json` holds the SHA-256 of every file."
"""What the card says of the manifest; where the card says it and there is no manifest, somebody took it away."""


def model_card(
    name: str,
    base: str,
    vocabulary: Mapping[str, Any],
    stages: Sequence[Mapping[str, Any]],
    gaps: Mapping[str, Any],
    precision: str,
    template: str,
    results: str = "",
    simulated: bool = False,
) -> str:
    """Return the README.md of an exported folder.

    `vocabulary` has size and fingerprint; a stage has stage, steps, tokens, parameters, trainable_parameters, final_loss and languages (all
    but the first optional; data, held_out); `gaps` has merge_gap, written_gap, tolerance, and quantized_gap where there is one; `results`
    is the Markdown that `evaluate` wrote.
    """
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- biology\n- genomics\n- dna\n- protein\n- llama-gene\n"
        + (f"base_model: {base}\n" if _is_hub_id(base) else "")
        + "---",
        f"# {name}",
        f"`{base}` with {vocabulary['size']:,} tokens of English, DNA and protein, continued with LLaMA-Gene and merged into one folder. "
        f"Weights are {precision}.",
    ]
    if simulated:
        parts.append("**Trained and evaluated on simulated data.** It shows that the route works; it knows nothing about real genes.")
    parts.append(
        "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")\n'
        'message = {"role": "user", "content": "Determine the ...\\n\\n### Input:\\nACGT..."}\n'
        'inputs = tokenizer.apply_chat_template([message], add_generation_prompt=True, return_tensors="pt", return_dict=True)\n'
        "answer = model.generate(**inputs, max_new_tokens=32)\n"
        'print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))\n```\n\n'
        f"The chat template is `{template}`, the prompt that the model was tuned with. Sequences are upper-case, without line breaks."
    )
    if stages:
        parts.append("## Training\n\n" + "\n".join(_stage_line(stage) for stage in stages))
    data: Mapping[str, Any] = next((stage["data"] for stage in reversed(stages) if stage.get("data")), {})
    if data:
        parts.append("## Data\n\n" + "\n".join(_data_line(language, facts) for language, facts in data.items()))
    parts.append(
        "## Checks\n\n"
        f"Largest difference of logits, relative to the largest logit: adapter against merged {gaps['merge_gap']:.2g}, "
        f"adapter against this folder as written {gaps['written_gap']:.2g} (allowed: {gaps['tolerance']:g}). "
        + _quantized_line(gaps)
        + f"Vocabulary fingerprint `{vocabulary['fingerprint']}`. {SEALED}"
    )
    if results:
        parts.append("## Results\n\n" + results.strip())
    parts.append(
        "## Limits\n\nA research model. Its answers are no diagnosis, and no annotation to rely on. The base's licence applies as well."
    )
    return "\n\n".join(parts) + "\n"


def _quantized_line(gaps: Mapping[str, Any]) -> str:
    """Return how far the model with packed weights, as it was trained, is from this one."""
    gap = gaps.get("quantized_gap")
    return "" if gap is None else f"The model as it was trained, its base in few bits, differs by {gap:.2g}: evaluate this folder. "


def _data_line(language: str, facts: Mapping[str, Any]) -> str:
    """Return what was read of one language, and what was left out because an evaluation holds it."""
    letters, documents = facts.get("letters", {}), facts.get("documents", {})
    line = f"- {language}: {letters.get('train', 0):,} letters in {documents.get('train', 0):,} documents"
    rejected = {reason: number for reason, number in facts.get("documents_rejected", {}).items() if number}
    if rejected:
        line += "; left out: " + ", ".join(f"{number:,} documents ({reason})" for reason, number in rejected.items())
    hits = facts.get("evaluation_hits", {})
    if hits:
        line += "; documents that hold evaluation sequences: " + ", ".join(f"{name} {number:,}" for name, number in hits.items())
    return line


def _stage_line(stage: Mapping[str, Any]) -> str:
    """Return one stage as a list item, with the facts that are known."""
    facts = []
    if stage.get("steps"):
        facts.append(f"{stage['steps']:,} steps")
    if stage.get("tokens"):
        facts.append(f"{stage['tokens']:,} tokens")
    if stage.get("trainable_parameters") and stage.get("parameters"):
        facts.append(f"{stage['trainable_parameters']:,} of {stage['parameters']:,} parameters trained")
    if stage.get("shares"):
        total = sum(stage["shares"].values()) or 1.0
        facts.append("languages " + ", ".join(f"{name} {100 * share / total:.0f} %" for name, share in stage["shares"].items()))
    looks = stage.get("held_out") or []
    if len(looks) > 1:
        changes = [
            f"{name.rpartition('/')[2]} {looks[0][name]:.3f} to {looks[-1][name]:.3f}"
            for name in looks[0]
            if name != "step" and name in looks[-1]
        ]
        facts.append("held-out bits per letter " + ", ".join(changes))
    if stage.get("final_loss") is not None:
        facts.append(f"last loss {stage['final_loss']:.3f}")
    return f"- `{stage['stage']}`: {', '.join(facts) or 'no facts recorded'}"


def _is_hub_id(base: str) -> bool:
    """Return whether a base's name is one that the hub could know: owner/name."""
    return base.count("/") == 1 and not base.startswith((".", "/", "~"))
