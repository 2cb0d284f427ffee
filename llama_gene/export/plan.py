"""Say, before any weight is read, what becomes of each tensor of the base when adapters are merged into it, in order.

A recipe is a tensor of the base and the steps that follow; each is a formula that a few rows can be computed by:

- LowRank (LoRA):  W + s B A in float32, s = alpha / r, or alpha / sqrt(r) with rsLoRA, by module where alpha_pattern and rank_pattern say
  so; transposed where the base keeps (in, out), as GPT-2 does, and for LoRA of an embedding. DoRA: each output's row is then scaled to
  length m.
- Replace (modules_to_save): the adapter's own copy, with the rows of a grown vocabulary.
- Rows (trainable_token_indices): some rows are the adapter's; those of new ids, which the base does not have, must all be among them.

Names and shapes are checked against an empty model of the base's config. What the formulas do not cover (PiSSA and OLoRA, which change the
base before they train; LoRA of stacked experts; biases; rows that nobody trained and that are made again from other rows) raises
NotStreamable with the reason: such an adapter is merged in memory by PEFT.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import peft
import torch
from accelerate import init_empty_weights
from peft.utils.other import get_pattern_key
from transformers import AutoModelForCausalLM, PreTrainedModel

from llama_gene.errors import InputError, MismatchError
from llama_gene.export.tensors import TensorFolder

PREFIX = "base_model.model."  # of the names in an adapter's file
STREAMED_STARTS = (True, False, "gaussian", "orthogonal", "eva")  # ways to start A and B that leave the base as it is
FREE_SETTINGS = {
    "task_type", "peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "r", "lora_alpha",
    "lora_dropout", "target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern", "rank_pattern",
    "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out", "init_lora_weights", "trainable_token_indices", "ensure_weight_tying",
    "runtime_config", "eva_config", "loftq_config", "megatron_core", "qalora_group_size",
}  # fmt: skip
"""Settings of PEFT that change no formula here, or are in it; any other one that is not at its default is left to PEFT."""


class NotStreamable(Exception):
    """Why an adapter has to be merged in memory."""


@dataclass(frozen=True)
class LowRank:
    """W + scale B A; with `magnitude` each output is scaled to that length (DoRA)."""

    adapter: int
    a: str
    b: str
    scale: float
    transposed: bool
    magnitude: str | None = None


@dataclass(frozen=True)
class Replace:
    """The adapter's own copy."""

    adapter: int
    name: str


@dataclass(frozen=True)
class Rows:
    """Some rows of the adapter's."""

    adapter: int
    name: str
    indices: tuple[int, ...]


Step = LowRank | Replace | Rows


@dataclass(frozen=True)
class Recipe:
    """How one tensor of the merged model comes about: a tensor of the base, steps, and so many rows of the result."""

    source: str
    shape: tuple[int, ...]
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class MergePlan:
    """What becomes of each tensor."""

    base: TensorFolder
    adapters: tuple[TensorFolder, ...]
    recipes: dict[str, Recipe]
    tied: bool
    """Whether the head is the embedding in the merged model."""
    embedding: str
    head: str
    num_ids: int
    rows_cut: int
    """Embedding rows that no token has, cut off."""
    left_out: tuple[str, ...] = field(default=())
    """Tensors of the base that its model does not have (buffers of older versions)."""


def empty_model(config: Any) -> PreTrainedModel:
    """Return a model of a config whose weights, float32, take no memory (and whose small buffers are real)."""
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.eval()
    return model


def plan_merge(
    base: TensorFolder,
    model: PreTrainedModel,
    adapters: Sequence[tuple[peft.LoraConfig, TensorFolder]],
    num_ids: int,
    old_ids: Sequence[int],
) -> MergePlan:
    """Return the plan; `model` is empty and of the base's config, `old_ids` holds the vocabulary size before each adapter.

    Raises NotStreamable, InputError for a base that lacks a tensor, MismatchError for tensors that do not fit together.
    """
    embedding, head = table_names(model)
    tied = bool(model.config.tie_word_embeddings)
    state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    left_out = _compare_names(base, model, set(state) - ({head} if tied else set()), head if tied else "")
    recipes = {name: Recipe(name, base.shape(name)) for name in base if name in state}
    if tied:
        recipes[head] = recipes[embedding]
    for name, recipe in recipes.items():
        if recipe.shape[1:] != state[name][1:] or (recipe.shape != state[name] and name not in (embedding, head)):
            raise MismatchError(f"{base.folder}: {name} has shape {recipe.shape}", f"{state[name]}, as its config says", "Check the base")
    for number, (config, tensors) in enumerate(adapters):
        _check_settings(config, tensors.folder)
        steps = _steps_of(number, config, tensors, recipes)
        if tied:
            _share_steps(steps, embedding, head, config)
        for name, step in steps:
            recipes[name] = _with_step(recipes[name], step, tensors)
        if old_ids[number] < num_ids:
            _check_new_rows(recipes, (embedding, head), old_ids[number], num_ids, tensors.folder)
    rows_cut = max(0, recipes[embedding].shape[0] - num_ids)
    for name in (embedding, head):
        rows = recipes[name].shape[0]
        if rows < num_ids:
            raise MismatchError(f"{name} has {rows:,} rows for {num_ids:,} tokens", "a row for each token", "Check base and adapter")
        recipes[name] = Recipe(recipes[name].source, (num_ids, *recipes[name].shape[1:]), recipes[name].steps)
    stays_tied = tied and recipes[head] == recipes[embedding]
    if stays_tied:
        del recipes[head]
    folders = tuple(tensors for _, tensors in adapters)
    return MergePlan(base, folders, recipes, stays_tied, embedding, head, num_ids, rows_cut, tuple(left_out))


def table_names(model: PreTrainedModel) -> tuple[str, str]:
    """Return the names of the embedding's weight and of the head's. Raises NotStreamable for a head that has a bias."""
    names = {id(module): name for name, module in model.named_modules()}
    layers: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    if layers[1] is None or getattr(layers[1], "bias", None) is not None:
        raise NotStreamable("its head has a bias" if layers[1] is not None else "it has no head of its own")
    return f"{names[id(layers[0])]}.weight", f"{names[id(layers[1])]}.weight"


def _compare_names(base: TensorFolder, model: PreTrainedModel, expected: set[str], tied_head: str) -> list[str]:
    """Return the tensors of the base that the model does not have; raise where it lacks one."""
    ignored = [*(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or []), r"rotary_emb\.inv_freq$"]
    extra = [name for name in base if name not in expected and name != tied_head]
    missing = sorted(expected - set(base))
    unknown = [name for name in extra if not any(re.search(pattern, name) for pattern in ignored)]
    if missing and unknown:
        raise NotStreamable(f"the base's files name tensors otherwise than its model ({unknown[0]} for {missing[0]})")
    if missing:
        fault = f"{base.folder} lacks {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        raise InputError(fault, f"every tensor of {type(model).__name__}", "Copy the base again")
    return extra


def _check_settings(config: peft.LoraConfig, folder: Path) -> None:
    """Raise NotStreamable for a setting of PEFT that the formulas do not know."""
    if not isinstance(config, peft.LoraConfig):
        raise NotStreamable(f"{folder.name} is no LoRA adapter ({config.peft_type})")
    default = peft.LoraConfig()
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name not in FREE_SETTINGS and value != getattr(default, item.name, None) and value:
            raise NotStreamable(f"{folder.name} has {item.name} {value}")
    if config.init_lora_weights not in STREAMED_STARTS:
        raise NotStreamable(f"{folder.name} started with {config.init_lora_weights}, which changes the base")


def _steps_of(number: int, config: peft.LoraConfig, tensors: TensorFolder, recipes: Mapping[str, Recipe]) -> list[tuple[str, Step]]:
    """Return the steps of one adapter, each with the tensor that it changes."""
    steps: list[tuple[str, Step]] = []
    for key in tensors:
        if not key.startswith(PREFIX):
            raise NotStreamable(f"{tensors.folder.name} holds {key}")
        name = key.removeprefix(PREFIX)
        module, _, part = name.partition(".lora_")
        if part in ("A.weight", "embedding_A"):
            step = _low_rank(number, config, tensors, key, module, recipes)
            steps.append((f"{module}.weight", step))
        elif part in ("B.weight", "embedding_B", "magnitude_vector", "magnitude_vector.weight"):
            partner = f"{PREFIX}{module}.lora_" + ("embedding_A" if part == "embedding_B" else "A.weight")
            if partner not in tensors:
                raise InputError(f"{tensors.folder} holds {key} without {partner}", "both", "Train or copy the adapter again")
        elif name.endswith(".token_adapter.trainable_tokens_delta"):
            module = name.removesuffix(".token_adapter.trainable_tokens_delta")
            steps.append((f"{module}.weight", Rows(number, key, _indices(config, module, tensors.shape(key)[0], tensors.folder))))
        elif part or name not in recipes:
            raise NotStreamable(f"{tensors.folder.name} holds {key}")
        else:
            steps.append((name, Replace(number, key)))
    for name, _ in steps:
        if name not in recipes:
            raise MismatchError(f"the adapter {tensors.folder} changes {name}, which the base lacks", "a tensor of the base")
    return steps


def _low_rank(number: int, config: peft.LoraConfig, tensors: TensorFolder, key: str, module: str, recipes: Mapping[str, Recipe]) -> LowRank:
    """Return the step of one pair A, B; check rank and shapes."""
    other = key.replace("lora_A", "lora_B").replace("embedding_A", "embedding_B")
    if other not in tensors or f"{module}.weight" not in recipes:
        raise InputError(f"{tensors.folder} holds {key} without {other} or a base", "both", "Train or copy the adapter again")
    a_shape, b_shape, rank = tensors.shape(key), tensors.shape(other), tensors.shape(key)[0]
    shape = recipes[f"{module}.weight"].shape
    if len(a_shape) != 2 or len(b_shape) != 2 or len(shape) != 2:
        raise NotStreamable(f"{tensors.folder.name} adapts {module}, which is no matrix")
    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    expected_rank = ranks.get(get_pattern_key(list(ranks), module), config.r)
    delta = (b_shape[0], a_shape[1])
    embeds = key.endswith("embedding_A")
    if rank != expected_rank or b_shape[1] != rank or (shape not in (delta, delta[::-1]) and not (embeds and delta[0] == shape[1])):
        fault = f"the adapter {tensors.folder} does not fit: {module} is {shape}, B {b_shape}, A {a_shape}, rank {expected_rank}"
        raise MismatchError(fault, "shapes that multiply", "Use the base that the adapter was trained on")
    alpha = alphas.get(get_pattern_key(list(alphas), module), config.lora_alpha)
    scale = alpha / math.sqrt(rank) if config.use_rslora else alpha / rank
    transposed = embeds or (shape != delta if delta[0] != delta[1] else bool(config.fan_in_fan_out))
    magnitude = next((name for name in (f"{PREFIX}{module}.lora_magnitude_vector", f"{PREFIX}{module}.lora_magnitude_vector.weight")
                      if name in tensors), None)  # fmt: skip
    if config.use_dora and (magnitude is None or embeds):
        raise NotStreamable(f"{tensors.folder.name}: DoRA of {module}")
    return LowRank(number, key, other, float(scale), transposed, magnitude)


def _indices(config: peft.LoraConfig, module: str, num_rows: int, folder: Path) -> tuple[int, ...]:
    """Return the row numbers that an adapter trained of a module."""
    asked = config.trainable_token_indices
    if isinstance(asked, Mapping):
        matches = [rows for name, rows in asked.items() if module == name or module.endswith(f".{name}")]
        asked = matches[0] if matches else None
    if asked is None or len(asked) != num_rows:
        raise MismatchError(f"{folder}: {num_rows} trained rows of {module}", f"{len(asked or [])}, as its config says")
    return tuple(asked)


def _share_steps(steps: list[tuple[str, Step]], embedding: str, head: str, config: peft.LoraConfig) -> None:
    """Give the head of a tied model the embedding's steps where PEFT trains the two as one: trained rows, and copies that stay tied."""
    own = {name for name, _ in steps}
    for name, step in list(steps):
        if name == embedding and isinstance(step, Rows) and head not in own:
            steps.append((head, step))
        elif name == embedding and isinstance(step, Replace) and config.ensure_weight_tying:
            steps[:] = [(other, kept) for other, kept in steps if other != head]
            steps.append((head, step))


def _with_step(recipe: Recipe, step: Step, tensors: TensorFolder) -> Recipe:
    """Return a recipe with one more step."""
    if isinstance(step, Replace):
        shape = tensors.shape(step.name)
        if shape[1:] != recipe.shape[1:]:
            raise MismatchError(f"the adapter {tensors.folder}: {step.name} is {shape}", f"{recipe.shape} but for the rows")
        return Recipe(recipe.source, shape, (step,))
    if isinstance(step, Rows):
        shape = (max(recipe.shape[0], max(step.indices) + 1), *recipe.shape[1:])
        return Recipe(recipe.source, shape, (*recipe.steps, step))
    return Recipe(recipe.source, recipe.shape, (*recipe.steps, step))


def _check_new_rows(recipes: Mapping[str, Recipe], names: Sequence[str], old: int, new: int, folder: Path) -> None:
    """Raise NotStreamable where rows of new ids were not trained: they are made again from the base's rows, by `grow_embeddings`."""
    for name in names:
        steps = recipes[name].steps
        whole = any(isinstance(step, Replace) for step in steps)
        trained = {row for step in steps if isinstance(step, Rows) for row in step.indices}
        if not whole and not trained.issuperset(range(old, new)):
            raise NotStreamable(f"{folder.name} did not train the rows of new ids in {name}")
