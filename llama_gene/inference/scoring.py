"""Log-likelihood of every allowed label as the answer to a prompt: such an answer can never be off the list.

B rows of a batch, P shared tokens, O tokens of the longest own part, W nodes of the widest label tree, T tokens of a pass, S columns that
they see (up to P + O + W), V vocabulary, N prompts, K labels.

1. Prompts are sorted into groups that begin with the same tokens (the template and the instruction; 66 of about 100 in the papers'
   rows). The P shared tokens are read once for a group and their keys and values kept (`prompt_cache`).
2. The labels of a prompt become a tree: tokens that several labels begin with are one node. The root is the prompt's last token; a
   label's last token (EOS) is only predicted, never read. "Yes</s>" and "No</s>" are three nodes, whatever the prompt.
3. The own parts of a batch, left-padded, are read behind the shared tokens, up to the keys and values of the last layer and no further.
   Then one forward pass reads the trees, so that logits exist at their W columns only: (B, W, V), never (B, O, V), which at a
   vocabulary of 188,416 would be 750 MB for one row of 1,000 tokens. An explicit mask lets a node see the prompt and its ancestors
   alone, an explicit position says how deep it stands.
4. A label's score is the sum, over its tokens, of the float32 log-softmax at the node before it. All labels share the root's.

A prompt costs O + W tokens instead of K (P + O + L). A sliding window (Mistral, Gemma) is cut by position, not by column, so padding
cannot move it: a score does not depend on batch mates (law 8). Models that cannot be masked so (flash attention, recurrent layers, ALiBi)
are scored by plain forward passes, one row for each prompt and label, right-padded.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm
from transformers import DynamicCache, PreTrainedModel

from llama_gene.errors import InputError
from llama_gene.inference.prompt_cache import PromptCache
from llama_gene.models.states import keeps_a_state

MAX_LOGITS = 2**27  # float32 numbers in one batch's logits: 512 MiB
CPU_TOKENS = 4096  # a batch's tokens on a CPU: 1,024 are slower, 8,192 no faster (prompts of benchmarks/label_scoring.py)
CPU_PASS = 1024  # of which so many are read in one pass, a stretch of columns of all rows: a stretch looks at none of the later ones
CPU_PIECE, GPU_PIECE = 2**19, 2**24  # logits whose softmax is taken in one go: 2 MiB in float32, 64 MiB
MIN_SHARED = 8  # tokens that a common beginning must have to be read apart
MIN_GROUP = 8  # prompts that must share a longer beginning to be a group of their own
SharedLabels = Sequence[Sequence[int]]
LabelsPerPrompt = Sequence[Sequence[Sequence[int]]]


def score_labels(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    labels: SharedLabels | LabelsPerPrompt,
    batch_tokens: int = 16384,
    vocab_size: int | None = None,
    progress: bool = False,
) -> NDArray[np.float64]:
    """Return the summed log-likelihood in nats of each label given each prompt, shape (N, K).

    `labels` holds the token ids of K labels, the same for every prompt, or one such list for each prompt (rows with fewer labels
    are filled with -inf). Labels should end with EOS: only then is "EC 1.1" told apart from "EC 1.1.2". `vocab_size` is the number
    of real tokens, len(tokenizer): embedding rows beyond it are padding and get no probability. `batch_tokens` bounds the tokens of
    a batch (padding included, shared beginnings not; on a CPU at most 4,096). Works with a transformers causal model and with a
    PeftModel around one.

    Raises InputError when a prompt or a label is empty, or a prompt with its longest label exceeds the model's context.
    """
    rows = _labels_per_prompt(labels, len(prompts))
    num_labels = max((len(row) for row in rows), default=0)
    longest = [max((len(label) for label in row), default=0) for row in rows]
    _check(prompts, rows, longest, context_length(model))
    if keeps_a_state(model):
        from llama_gene.inference.whole_rows import score_whole_rows  # which takes its batches from here

        return score_whole_rows(model, prompts, rows, batch_tokens, vocab_size or _num_columns(model), progress)
    scores = np.full((len(prompts), num_labels), -np.inf)
    width = vocab_size or _num_columns(model)
    score = _score_trees if _reads_trees(model) else _score_plainly
    with inference_of(model), tqdm(total=len(prompts), desc="scoring", unit="prompt", disable=not progress) as bar:
        for batch, values in score(model, prompts, rows, batch_tokens, width):
            for i, value in zip(batch, values, strict=True):
                scores[i, : len(value)] = value
            bar.update(len(batch))
    return scores


def normalise_scores(
    scores: ArrayLike, label_lengths: ArrayLike, how: Literal["sum", "mean"] = "sum", offsets: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return scores (N, K) with `offsets` (K,) subtracted, and divided by the labels' token counts (K,) or (N, K) where `how` is mean.

    "mean" is the log-likelihood of a token: long labels are not punished for their length (acc_norm of lm-evaluation-harness divides by
    bytes; GPT-3 by tokens, Brown et al. 2020, section 2.4). `offsets` are `calibration_offsets`.

    >>> normalise_scores([[-2.0, -3.0]], [2, 4], "mean").tolist()
    [[-1.0, -0.75]]
    """
    values = np.asarray(scores, dtype=np.float64)
    lengths = np.asarray(label_lengths, dtype=np.float64)
    if how not in ("sum", "mean"):
        raise InputError(f"scores normalised by '{how}'", "sum or mean")
    if lengths.shape[-1:] != values.shape[-1:] or not (lengths > 0).all():
        raise InputError(f"label lengths of shape {lengths.shape} for scores of shape {values.shape}", "one count above 0 for each label")
    if offsets is not None:
        values = values - np.asarray(offsets, dtype=np.float64)
    return values / lengths if how == "mean" else values


def calibration_offsets(scores: ArrayLike, prior: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return what to subtract from each label's score, shape (K,): log of how much probability the model gives it whatever is asked.

    `scores` (M, K) are those of M prompts that say nothing about the answer: either content-free ones (the instruction with the sequence
    left out or replaced; contextual calibration, Zhao et al. 2021; with M = 1 this is PMI, Holtzman et al. 2021) or, better for
    sequences, a sample of *dev* prompts (batch calibration, Zhou et al. 2024): no sequence is neutral, and a tuned model has never seen
    an empty one. Never the test rows: a score would depend on its neighbours (law 8). The offset is log(mean over prompts of
    softmax(scores)) - log(prior). Without `prior` labels are taken as equally likely, which hurts where they are not: give the training
    rows' shares.

    >>> calibration_offsets([[np.log(0.8), np.log(0.2)]], prior=[0.5, 0.5]).round(3).tolist()
    [0.47, -0.916]
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or not len(values) or not np.isfinite(values).all():
        raise InputError(f"calibration scores of shape {values.shape}", "at least one prompt, a finite score for each label")
    logs = values - np.logaddexp.reduce(values, axis=1, keepdims=True)
    offsets: NDArray[np.float64] = np.logaddexp.reduce(logs, axis=0) - np.log(len(logs))
    if prior is not None:
        shares = np.asarray(prior, dtype=np.float64)
        if shares.shape != offsets.shape or not (shares > 0).all():
            raise InputError(f"a prior of shape {shares.shape} for {len(offsets)} labels", "one share above 0 for each label")
        offsets = offsets - np.log(shares / shares.sum())
    return offsets


# --- the label tree --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelTree:
    """Labels with their common beginnings read once. Node 0 is the prompt's last token, whatever it is."""

    tokens: tuple[int, ...]
    """The token of each node but node 0."""
    parents: tuple[int, ...]
    """The parent of each node but node 0."""
    steps: tuple[tuple[tuple[int, int], ...], ...]
    """For each label the (node, token predicted there) of each of its tokens."""

    @property
    def depths(self) -> list[int]:
        """Return how many tokens each node stands behind the prompt's last token."""
        depths = [0]
        for parent in self.parents:
            depths.append(depths[parent] + 1)
        return depths

    @property
    def sees(self) -> NDArray[np.bool_]:
        """Return which nodes (columns) a node (row) sees: itself and its ancestors, shape (W, W)."""
        sees = np.eye(len(self.parents) + 1, dtype=bool)
        for node, parent in enumerate(self.parents, start=1):
            sees[node] |= sees[parent]
        return sees


def label_tree(labels: Sequence[Sequence[int]]) -> LabelTree:
    """Return the tree of labels given as token ids.

    >>> label_tree([[7, 1], [7, 8, 1], [9, 1]])
    LabelTree(tokens=(7, 8, 9), parents=(0, 1, 0), steps=(((0, 7), (1, 1)), ((0, 7), (1, 8), (2, 1)), ((0, 9), (3, 1))))
    """
    nodes: dict[tuple[int, int], int] = {}
    steps = []
    for label in labels:
        node, path = 0, []
        for place, token in enumerate(label):
            path.append((node, token))
            if place < len(label) - 1:
                node = nodes.setdefault((node, token), len(nodes) + 1)
        steps.append(tuple(path))
    return LabelTree(tuple(token for _, token in nodes), tuple(parent for parent, _ in nodes), tuple(steps))


def _score_trees(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], rows: Sequence[Sequence[Sequence[int]]], batch_tokens: int, width: int
) -> Iterator[tuple[list[int], list[NDArray[np.float64]]]]:
    """Yield (numbers of prompts, the scores of each one's labels)."""
    trees: dict[int, LabelTree] = {}  # by identity: the same list of labels serves many prompts
    for row in rows:
        if id(row) not in trees:
            trees[id(row)] = label_tree(row)
    of = [trees[id(row)] for row in rows]
    if model.device.type == "cpu":
        batch_tokens = min(batch_tokens, CPU_TOKENS)
    num_layers = model.config.get_text_config().num_hidden_layers
    for members, shared in prefix_groups(prompts):
        begin = None
        if shared:
            begin = PromptCache(num_layers, 1, shared)
            begin.read(model, input_ids=torch.tensor([list(prompts[members[0]][:shared])], device=model.device))
        cache = PromptCache(num_layers, 0, 0, begin)
        nodes = max(len(of[i].tokens) for i in members) + 1
        lengths = [len(prompts[i]) - shared - 1 + nodes for i in members]
        for places in batches_by_length(lengths, batch_tokens, max(1, MAX_LOGITS // (width * nodes))):
            if len(places) > cache.num_rows:  # the longest come first, so that the columns suffice
                cache = PromptCache(num_layers, len(places), shared + lengths[places[0]], begin)
            batch = [members[place] for place in places]
            yield batch, _score_batch(model, cache, [prompts[i] for i in batch], [of[i] for i in batch], width)


@dataclass(frozen=True)
class _Columns:
    """A batch laid out: shared beginning, own parts (left-padded), trees (right-padded)."""

    ids_BS: NDArray[np.int64]
    positions_BS: NDArray[np.int64]
    """Padding stands at 0, inside every context."""
    is_padding_BS: NDArray[np.bool_]
    trees: Sequence[LabelTree]
    num_prompt: int
    """Columns before the trees."""

    @property
    def are_alike(self) -> bool:
        """Whether one row's mask is that of all."""
        return bool((self.positions_BS == self.positions_BS[0]).all()) and all(tree is self.trees[0] for tree in self.trees)

    def sees(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Return what the tokens of some columns see, (B, T, S) or, if rows are alike, (1, T, S): S columns up to the last of them."""
        sees_TS = np.tri(stop - start, stop, start, dtype=bool)
        rows = 1 if self.are_alike else len(self.ids_BS)
        sees_BTS = sees_TS & ~self.is_padding_BS[:rows, None, :stop]
        if start == self.num_prompt:
            for b, tree in enumerate(self.trees[:rows]):
                nodes = len(tree.tokens) + 1
                sees_BTS[b, :nodes, start : start + nodes] = tree.sees
        sees_BTS[:, range(stop - start), range(start, stop)] = True  # padding sees itself: a softmax over nothing would be NaN
        return sees_BTS


def _lay_out(prompts: Sequence[Sequence[int]], trees: Sequence[LabelTree], shared: int) -> _Columns:
    """Return the columns of a batch."""
    num_prompt = max(map(len, prompts)) - 1
    num_nodes = max(len(tree.tokens) for tree in trees) + 1
    ids_BS = np.zeros((len(prompts), num_prompt + num_nodes), dtype=np.int64)
    positions_BS = np.zeros_like(ids_BS)
    positions_BS[:, :shared] = np.arange(shared)
    is_padding_BS = np.zeros(ids_BS.shape, dtype=bool)
    for b, (prompt, tree) in enumerate(zip(prompts, trees, strict=True)):
        start, stop = shared + num_prompt + 1 - len(prompt), num_prompt + len(tree.tokens) + 1
        ids_BS[b, start:stop] = [*prompt[shared:], *tree.tokens]
        positions_BS[b, start:num_prompt] = np.arange(shared, len(prompt) - 1)
        positions_BS[b, num_prompt:stop] = np.array(tree.depths) + len(prompt) - 1
        is_padding_BS[b, shared:start] = True
    return _Columns(ids_BS, positions_BS, is_padding_BS, trees, num_prompt)


def _score_batch(
    model: PreTrainedModel, cache: PromptCache, prompts: Sequence[Sequence[int]], trees: Sequence[LabelTree], width: int
) -> list[NDArray[np.float64]]:
    """Return the scores of each row's labels: the own parts are read a stretch of columns at a time, then all trees in one pass."""
    cache.empty()
    columns = _lay_out(prompts, trees, cache.num_filled)
    num_own = columns.num_prompt - cache.num_filled
    num_stretches = -(-num_own * len(prompts) // CPU_PASS) if model.device.type == "cpu" else min(1, num_own)
    borders = np.linspace(cache.num_filled, columns.num_prompt, min(num_stretches, num_own) + 1).round().astype(int).tolist()
    for start, stop in pairwise(borders):
        cache.read(model, **_inputs(model, columns, start, stop))
    tree_inputs = _inputs(model, columns, columns.num_prompt, columns.ids_BS.shape[1])
    logits_BWV = model(**tree_inputs, past_key_values=cache, use_cache=True).logits[..., :width]
    return _sum_steps(logits_BWV, trees)


def _inputs(model: PreTrainedModel, columns: _Columns, start: int, stop: int) -> dict[str, Any]:
    """Return some columns as a model takes them, with what each token sees for each kind of layer, (B, 1, T, S): windows go by position."""
    config = model.config.get_text_config()
    sees_BTS, positions_BS = columns.sees(start, stop), columns.positions_BS
    masks: dict[str, torch.Tensor] = {}
    for kind in _layer_kinds(model):
        mask_BTS = sees_BTS
        if kind == "sliding_attention":
            away_BTS = positions_BS[: len(sees_BTS), start:stop, None] - positions_BS[: len(sees_BTS), None, :stop]
            mask_BTS = sees_BTS & (away_BTS < config.sliding_window)
        mask = torch.from_numpy(mask_BTS)[:, None].to(model.device)
        if config._attn_implementation == "eager" or mask.device.type == "cpu":  # added to the scores; sdpa would convert it in each layer
            mask = torch.zeros(mask.shape, dtype=model.dtype, device=model.device).masked_fill(~mask, torch.finfo(model.dtype).min)
        masks[kind] = mask.expand(len(columns.ids_BS), -1, -1, -1)
    return {
        "input_ids": torch.from_numpy(columns.ids_BS[:, start:stop]).to(model.device),
        "position_ids": torch.from_numpy(positions_BS[:, start:stop]).to(model.device),
        "attention_mask": masks if len(masks) > 1 else next(iter(masks.values())),
    }


def _sum_steps(logits_BWV: torch.Tensor, trees: Sequence[LabelTree]) -> list[NDArray[np.float64]]:
    """Return the log-likelihood of each tree's labels from the logits of its nodes.

    The softmax is taken of a few nodes at a time, which stay in the cache: on a CPU a quarter of the time of one logsumexp of all.
    """
    num_nodes, vocab_size = logits_BWV.shape[1:]
    steps = np.array([(b * num_nodes + node, token) for b, tree in enumerate(trees) for path in tree.steps for node, token in path])
    chosen = np.empty(len(steps))
    num = max(1, (CPU_PIECE if logits_BWV.device.type == "cpu" else GPU_PIECE) // vocab_size)
    for start, logits_RV in zip(range(0, len(trees) * num_nodes, num), logits_BWV.flatten(0, 1).split(num), strict=True):
        here = np.flatnonzero((steps[:, 0] >= start) & (steps[:, 0] < start + num))
        if len(here):
            rows, tokens = torch.from_numpy(steps[here]).to(logits_RV.device).unbind(1)
            chosen[here] = logits_RV.float().log_softmax(-1)[rows - start, tokens].double().cpu().numpy()
    ends = np.cumsum([len(path) for tree in trees for path in tree.steps])
    sums = np.add.reduceat(chosen, np.concatenate([[0], ends[:-1]]))
    return np.split(sums, np.cumsum([len(tree.steps) for tree in trees])[:-1])


def _layer_kinds(model: PreTrainedModel) -> list[str]:
    """Return the kinds of attention among the model's layers, by transformers' names."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return sorted(set(kinds))
    return ["sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"]


def _reads_trees(model: PreTrainedModel) -> bool:
    """Return whether a model takes explicit masks and positions, so that labels can stand side by side in one row."""
    config = model.config.get_text_config()
    get_base = getattr(model, "get_base_model", None)
    parameters = inspect.signature((get_base() if get_base else model).forward).parameters
    return (
        config._attn_implementation in ("sdpa", "eager")
        and set(_layer_kinds(model)) <= {"full_attention", "sliding_attention"}
        and {"position_ids", "logits_to_keep", "past_key_values"} <= set(parameters)
        and not getattr(config, "alibi", False)
        and not getattr(model, "_is_stateful", False)
        # GPT-Neo masks by column with a (1, 1, T, T) table of its own, whatever mask is passed: labels side by side would not be apart
        and not any(buffer.dim() == 4 for _, buffer in model.named_buffers())
    )


def _score_plainly(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], rows: Sequence[Sequence[Sequence[int]]], batch_tokens: int, width: int
) -> Iterator[tuple[list[int], list[NDArray[np.float64]]]]:
    """Yield as `_score_trees`, from forward passes over whole rows, right-padded: causal layers of any kind never see padding."""
    scores = [np.zeros(len(row)) for row in rows]
    pairs = [(i, k) for i, row in enumerate(rows) for k in range(len(row))]
    lengths = [len(prompts[i]) + len(rows[i][k]) for i, k in pairs]
    for places in batches_by_length(lengths, batch_tokens, max(1, MAX_LOGITS // (width * max(lengths, default=1)))):
        longest = max(lengths[place] for place in places)
        ids_BT = torch.zeros(len(places), longest, dtype=torch.long)
        mask_BT = torch.zeros(len(places), longest, dtype=torch.long)
        for b, place in enumerate(places):
            i, k = pairs[place]
            ids_BT[b, : lengths[place]] = torch.tensor([*prompts[i], *rows[i][k]])
            mask_BT[b, : lengths[place]] = 1
        logits_BTV = model(input_ids=ids_BT.to(model.device), attention_mask=mask_BT.to(model.device), use_cache=False).logits[..., :width]
        for b, place in enumerate(places):
            i, k = pairs[place]
            logits_LV = logits_BTV[b, len(prompts[i]) - 1 : lengths[place] - 1].float()
            chosen_L = logits_LV[range(len(rows[i][k])), list(rows[i][k])] - logits_LV.logsumexp(-1)
            scores[i][k] = float(chosen_L.double().sum())
    yield list(range(len(prompts))), scores


# --- shared beginnings -----------------------------------------------------------------------------------------------------------


def prefix_groups(prompts: Sequence[Sequence[int]]) -> list[tuple[list[int], int]]:
    """Return groups of prompts (their numbers) with how many tokens all of a group begin with, 0 where that is not worth a pass.

    Every prompt is in one group; at least its last token is its own. A beginning is shared by all of a group; prompts that go on
    together for 8 tokens more (other instructions of the same template), eight or more of them, are a group of their own.

    >>> prefix_groups([[*range(9), 20], [*range(9), 21, 22]])
    [([0, 1], 9)]
    >>> prefix_groups([[1, 2, 3], [1, 5]])
    [([0, 1], 0)]
    """
    order = sorted(range(len(prompts)), key=lambda i: list(prompts[i]))
    return _split(prompts, order, 0) if order else []


def _split(prompts: Sequence[Sequence[int]], order: list[int], depth: int) -> list[tuple[list[int], int]]:
    """Return the groups among sorted prompts that share their first `depth` tokens."""
    first, last = prompts[order[0]], prompts[order[-1]]
    limit = min(len(prompts[i]) for i in order) - 1
    shared = depth
    while shared < limit and first[shared] == last[shared]:
        shared += 1
    groups: list[tuple[list[int], int]] = []
    rest: list[int] = []
    start = 0
    while start < len(order):  # runs of prompts that agree for MIN_SHARED tokens more
        key = list(prompts[order[start]][shared : shared + MIN_SHARED])
        stop = start
        while stop < len(order) and list(prompts[order[stop]][shared : shared + MIN_SHARED]) == key:
            stop += 1
        run = order[start:stop]
        start = stop
        has_own = min(len(prompts[i]) for i in run) > shared + MIN_SHARED
        if len(run) >= MIN_GROUP and len(run) < len(order) and has_own:
            groups += _split(prompts, run, shared + MIN_SHARED)
        else:
            rest += run
    if rest:
        groups.insert(0, (sorted(rest), shared if shared >= MIN_SHARED and len(rest) > 1 else 0))
    return groups


# --- prompts read for generation --------------------------------------------------------------------------------------------------


@dataclass
class Prefix:
    """A batch of prompts that the model has read but for their last tokens."""

    cache: DynamicCache
    mask_BT: torch.Tensor
    """1 where a column of the cache holds a token, 0 where it holds padding."""
    lengths_B: torch.Tensor
    """Tokens of each row in the cache: the position of the token that comes next."""
    last_B: torch.Tensor
    """The last token of each prompt: the next to feed."""


def read_prompts(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Prefix:
    """Run prompts without their last tokens, left-padded: windows that count columns find a prompt and its answer side by side."""
    device = model.device
    cache = DynamicCache(config=model.config)
    lengths_B = torch.tensor([len(prompt) - 1 for prompt in prompts])
    width = int(lengths_B.max())
    ids_BT = torch.zeros(len(prompts), width, dtype=torch.long)
    for b, prompt in enumerate(prompts):
        ids_BT[b, width - len(prompt) + 1 :] = torch.tensor(prompt[:-1], dtype=torch.long)
    mask_BT = (torch.arange(width) >= width - lengths_B[:, None]).long().to(device)
    last_B = torch.tensor([prompt[-1] for prompt in prompts], device=device)
    if width:
        positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
        model(
            input_ids=ids_BT.to(device),
            attention_mask=mask_BT,
            position_ids=positions_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,  # the last position's logits are not needed either, but 0 would mean all of them
        )
    return Prefix(cache, mask_BT, lengths_B.to(device), last_B)


# --- batches and models ----------------------------------------------------------------------------------------------------------


def batches_by_length(lengths: Sequence[int], batch_tokens: int, max_rows: int | None = None) -> Iterator[list[int]]:
    """Yield batches of row numbers, longest rows first, each at most `batch_tokens` with its padding (one row at least).

    >>> list(batches_by_length([2, 9, 3, 8], batch_tokens=18))
    [[1, 3], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        num_rows = max(1, batch_tokens // max(1, lengths[order[start]]))
        stop = start + min(num_rows, max_rows or num_rows)
        yield order[start:stop]
        start = stop


@contextmanager
def inference_of(model: PreTrainedModel) -> Iterator[None]:
    """Run a block without dropout and gradients; the model's training mode is put back after it."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def context_length(model: PreTrainedModel) -> int | None:
    """Return how many tokens the model can read, None if its config sets no limit."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return int(limit) if limit and limit > 0 else None


def _num_columns(model: PreTrainedModel) -> int:
    """Return the number of logits of a position."""
    head = model.get_output_embeddings()
    return int(head.weight.shape[0]) if head is not None else int(model.config.vocab_size)


def _labels_per_prompt(labels: SharedLabels | LabelsPerPrompt, num_prompts: int) -> list[Sequence[Sequence[int]]]:
    """Give each prompt its own list of labels."""
    is_shared = all(isinstance(token, int) for label in labels for token in label)
    rows: list[Sequence[Sequence[int]]] = [labels] * num_prompts if is_shared else list(labels)  # type: ignore[list-item, arg-type]
    if len(rows) != num_prompts:
        raise InputError(f"{len(rows)} lists of labels for {num_prompts} prompts", "one list for each prompt")
    return rows


def _check(prompts: Sequence[Sequence[int]], rows: Sequence[Sequence[Sequence[int]]], longest: Sequence[int], limit: int | None) -> None:
    """Raise InputError for what has no score."""
    for i, (prompt, row, extra) in enumerate(zip(prompts, rows, longest, strict=True)):
        if not prompt:
            raise InputError(f"prompt {i} has no token", "at least one", "Give the tokenizer's BOS or some text")
        if not row or any(not label for label in row):
            raise InputError(f"prompt {i} has no label or a label without a token", "labels of at least one token (EOS)")
        if limit is not None and len(prompt) + extra > limit:
            raise InputError(
                f"prompt {i} and its longest label have {len(prompt) + extra} tokens",
                f"at most the model's {limit}",
                "Leave the prompt out or shorten its sequence",
            )
