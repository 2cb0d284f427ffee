"""Free answers: greedy or sampled, one loop for batches and for streaming.

B rows of a batch, V vocabulary. Prompts are left-padded with explicit mask and positions and their cache is read once
(scoring.py); each step feeds one token a row. A row ends at the first stop token (the tokenizer's EOS and those of the model's
generation config). The answer is what follows the prompt *in token ids*: it is never cut out of a text by its number of
characters, which comes back empty where a prompt does not decode to itself (notes: reference faults, C8).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from llama_gene.errors import InputError
from llama_gene.inference.scoring import MAX_LOGITS, batches_by_length, context_length, inference_of, read_prompts
from llama_gene.models.states import takes_a_cache
from llama_gene.tokenization.tokenizer import decode


def generate_answers(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 32,
    batch_tokens: int = 16384,
    temperature: float = 0.0,
    seed: int = 0,
    progress: bool = False,
    labels: Sequence[str] = (),
) -> list[str]:
    """Return the model's answer to each prompt (token ids), without the prompt, without EOS, stripped of outer blanks.

    `temperature` 0 is greedy; above 0 tokens are drawn from softmax(logits / temperature) with a generator seeded for the call, so
    that the same prompts give the same answers. Ids that the tokenizer does not have (padding rows) are never generated. With `labels`
    a batch also ends when every answer is decided (`is_decided`), so answers are cut short; `semantic_match` gives the same for them.
    Raises InputError when a prompt leaves no room for `max_new_tokens` in the model's context: nothing is truncated.
    """
    check_room(model, prompts, max_new_tokens)
    answers = [""] * len(prompts)
    generator = torch.Generator(model.device).manual_seed(seed)
    stops = stop_tokens(model, tokenizer)
    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    max_rows = max(1, MAX_LOGITS // len(tokenizer))
    with tqdm(total=len(prompts), desc="answering", unit="prompt", disable=not progress) as bar:
        for batch in batches_by_length(lengths, batch_tokens, max_rows):
            answered: list[list[int]] = [[] for _ in batch]
            for column in _steps(model, tokenizer, [prompts[i] for i in batch], max_new_tokens, temperature, generator):
                for ids, token in zip(answered, column, strict=True):
                    ids.append(token)
                if labels and all(is_decided(decode(tokenizer, _before(ids, stops)), labels) or stops & set(ids) for ids in answered):
                    break
            for i, ids in zip(batch, answered, strict=True):
                answers[i] = decode(tokenizer, _before(ids, stops)).strip()
            bar.update(len(batch))
    return answers


def stream_answer(
    model: PreTrainedModel,
    tokenizer: Any,
    prompt: Sequence[int],
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[str]:
    """Yield the answer's text piece by piece, as it is generated. Joined, the pieces are the whole answer.

    A piece is held back while it ends inside a character (several byte tokens make one letter). Raises as `generate_answers`.
    """
    check_room(model, [prompt], max_new_tokens)
    generator = torch.Generator(model.device).manual_seed(seed)
    stops = stop_tokens(model, tokenizer)
    ids: list[int] = []
    shown = ""
    for column in _steps(model, tokenizer, [prompt], max_new_tokens, temperature, generator):
        if column[0] in stops:
            break
        ids.append(column[0])
        text = decode(tokenizer, ids)
        if text.startswith(shown) and not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[len(shown) :]
            shown = text
    rest = decode(tokenizer, ids)
    if rest != shown:
        yield rest[len(shown) :]


def is_decided(text: str, labels: Sequence[str]) -> bool:
    """Return whether no continuation of an answer's beginning can change which label `semantic_match` finds in it.

    >>> [is_decided(text, ["promoter", "Non-promoter"]) for text in ("Non", "Non-promoter", "promoter-", "promoter, ", "I think")]
    [False, False, False, True, True]
    """
    start = text.strip().strip("\"'`*").lstrip().lower()
    if not start or text.endswith("\N{REPLACEMENT CHARACTER}"):
        return False
    for label in map(str.lower, labels):
        # The word's end behind a label may take two more characters to tell ("-like", ".5").
        if label.startswith(start) or (start.startswith(label) and start[len(label) :] in ("", "-", ".")):
            return False
    return True


def _before(ids: Sequence[int], stops: set[int]) -> list[int]:
    """Return the ids before the first stop token."""
    return list(itertools.takewhile(lambda token: token not in stops, ids))


def stop_tokens(model: PreTrainedModel, tokenizer: Any) -> set[int]:
    """Return the ids that end an answer."""
    config = getattr(model, "generation_config", None)
    listed = getattr(config, "eos_token_id", None)
    stops = {listed} if isinstance(listed, int) else set(listed or ())
    return stops | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set())


def check_room(model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Raise InputError when a prompt is empty or leaves no room for the answer in the model's context, or the model would forget it."""
    if not takes_a_cache(model):
        raise InputError(
            f"{type(model).__name__} keeps what it has read in a form of its own",
            "a model with past_key_values for generated answers",
            "Score labels instead (scorer: likelihood)",
        )
    limit = context_length(model)
    for i, prompt in enumerate(prompts):
        if not prompt:
            raise InputError(f"prompt {i} has no token", "at least one", "Give the tokenizer's BOS or some text")
        if limit is not None and len(prompt) + max_new_tokens > limit:
            raise InputError(
                f"the prompt has {len(prompt)} tokens and {max_new_tokens} are kept for the answer",
                f"at most the model's {limit} together",
                "Give a shorter sequence or a smaller max_new_tokens",
            )


def _steps(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator,
) -> Iterator[list[int]]:
    """Yield the next token of each row, step by step, until every row has stopped; what follows a row's stop is meaningless."""
    stops = stop_tokens(model, tokenizer)
    num_tokens = len(tokenizer)
    done = [False] * len(prompts)
    with inference_of(model):
        prefix = read_prompts(model, prompts)
        mask_BT, token_B = prefix.mask_BT, prefix.last_B
    for step in range(max_new_tokens):
        with inference_of(model):  # entered for each step: a caller of the generator keeps its own gradient mode in between
            mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(prompts), 1)], dim=1)
            logits_BV = (
                model(
                    input_ids=token_B[:, None],
                    attention_mask=mask_BT,
                    position_ids=(prefix.lengths_B + step)[:, None],
                    past_key_values=prefix.cache,
                    use_cache=True,
                )
                .logits[:, -1, :num_tokens]
                .float()
            )
            if temperature > 0:
                token_B = torch.multinomial((logits_BV / temperature).softmax(-1), 1, generator=generator).squeeze(1)
            else:
                token_B = logits_BV.argmax(-1)
        column = token_B.tolist()
        yield column
        done = [was or token in stops for was, token in zip(done, column, strict=True)]
        if all(done):
            return
