"""Log-likelihoods of sequences against the plain sum over each alone, and what a planted model says of mutants."""

from __future__ import annotations

import math
import random

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel

from llama_gene.errors import InputError
from llama_gene.inference.likelihood import LikelihoodScorer, is_causal
from llama_gene.inference.perplexity import bits_per_letter
from llama_gene.tokenization.tokenizer import encode_text
from tests.tiny_models import PIECES, tiny_gpt2, tiny_llama, tiny_mistral, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
TEXTS = ["ACGTACGT", "M", "TTTTAACG" * 6, "", "ACGT" * 20]


def plain_nats(model: torch.nn.Module, text: str, end: bool = False) -> float:
    """Return log P of a text's tokens, given BOS; one row, no padding, no windows."""
    ids = torch.tensor([[0, *encode_text(TOKENIZER, text), *([1] if end else [])]])
    with torch.no_grad():
        log_probs = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
    return float(log_probs[:-1].gather(1, ids[0, 1:, None]).double().sum())


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_mistral])
@pytest.mark.parametrize("end", [False, True])
def test_a_likelihood_is_that_of_the_sequence_alone(make, end: bool) -> None:  # type: ignore[no-untyped-def]
    model = make()
    found = LikelihoodScorer(model, TOKENIZER, max_length=128, end=end).score(TEXTS)
    assert [item.nats for item in found] == pytest.approx([plain_nats(model, text, end) for text in TEXTS], rel=1e-5, abs=1e-6)
    assert [item.tokens for item in found] == [len(text) + end for text in TEXTS]


def test_law_08_a_likelihood_does_not_depend_on_batch_mates_order_or_batch_tokens() -> None:
    model = tiny_llama()
    alone = {text: LikelihoodScorer(model, TOKENIZER, 16).score([text])[0].nats for text in TEXTS}
    rng = random.Random(0)
    for batch_tokens in (1, 20, 64, 16384):
        texts = rng.sample(TEXTS, len(TEXTS))
        found = LikelihoodScorer(model, TOKENIZER, 16, batch_tokens).score(texts)
        assert [item.nats for item in found] == pytest.approx([alone[text] for text in texts], rel=1e-5, abs=1e-5)


def test_windows_are_counted_and_each_token_is_scored_once() -> None:
    model = tiny_llama()
    [long, short] = LikelihoodScorer(model, TOKENIZER, max_length=16, end=True).score(["ACGT" * 10, "ACG"])
    assert (long.tokens, long.windows, short.windows) == (41, 5, 1)  # 16 + 4 x 8 >= 42 > 16 + 3 x 8
    bits = bits_per_letter(model, TOKENIZER, ["ACGT" * 10], max_length=16)["bits"]
    assert long.bits_per_letter(1) == pytest.approx(bits, rel=1e-6)


def test_the_context_of_the_model_is_never_exceeded() -> None:
    [item] = LikelihoodScorer(tiny_gpt2(context=32), TOKENIZER, max_length=4096).score(["ACGT" * 20])
    assert item.tokens == 80 and item.windows == 5


def test_the_same_text_is_computed_once() -> None:
    scorer = LikelihoodScorer(tiny_llama(), TOKENIZER)
    first = scorer.score(["ACGT", "ACGT", "TT"])
    assert scorer.computed == 2
    assert scorer.score(["TT", "ACGT"]) == [first[2], first[0]] and scorer.computed == 2
    scorer.remembered_letters = 4
    scorer.score(["GGG"])
    scorer.score(["GGG"])
    assert scorer.computed == 3
    scorer.score(["ACGT"])
    assert scorer.computed == 4


def test_a_model_that_knows_nothing_pays_log2_of_its_vocabulary() -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    [item] = LikelihoodScorer(model, TOKENIZER).score(["ACGT"])
    assert item.bits_per_letter(4) == pytest.approx(math.log2(259))


def test_rows_beyond_the_tokenizer_take_no_probability() -> None:
    model = tiny_llama(vocab_size=300)
    [padded] = LikelihoodScorer(model, TOKENIZER).score(["ACGT"])
    model.resize_token_embeddings(259)
    [cut] = LikelihoodScorer(model, TOKENIZER).score(["ACGT"])
    assert padded.nats == pytest.approx(cut.nats, rel=1e-5)


def test_a_model_that_sees_what_comes_has_no_likelihood() -> None:
    config = BertConfig(
        vocab_size=259, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, initializer_range=0.2
    )
    model = BertLMHeadModel(config).eval()
    assert not is_causal(model, 259) and is_causal(tiny_llama(), 259)
    with pytest.raises(InputError, match="looks at later tokens too.*expected a causal language model. Such a model can be used with"):
        LikelihoodScorer(model, TOKENIZER)


def test_end_needs_an_end_token() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end-of-text token"):
        LikelihoodScorer(tiny_llama(), tokenizer, end=True)


def test_a_trained_model_gives_lower_scores_to_mutants_that_break_its_grammar() -> None:
    """The planted grammar: after A comes C, after C G, after G T, after T A, in 9 of 10 places."""
    model, tokenizer = tiny_llama(vocab_size=261), tiny_tokenizer(PIECES)
    rng = random.Random(0)

    def gene(length: int) -> str:
        text = rng.choice("ACGT")
        while len(text) < length:
            text += "CGTA"["ACGT".index(text[-1])] if rng.random() < 0.9 else rng.choice("ACGT")
        return text

    train(model, tokenizer, [gene(48) for _ in range(200)])
    reference = "ACGT" * 10
    mutants = [f"{reference[:i]}{letter}{reference[i + 1 :]}" for i in range(8, 32) for letter in "ACGT" if letter != reference[i]]
    scorer = LikelihoodScorer(model, tokenizer)
    known, *scores = [item.nats for item in scorer.score([reference, *mutants])]
    assert max(scores) < known - 1


def train(model: torch.nn.Module, tokenizer: object, texts: list[str], steps: int = 60) -> None:
    """Train all weights on BOS + text, a few texts a step."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        rows = [[0, *encode_text(tokenizer, text)] for text in texts[step * 8 % len(texts) :][:8]]  # type: ignore[arg-type]
        width = max(map(len, rows))
        labels = torch.tensor([[*row, *[-100] * (width - len(row))] for row in rows])
        loss = model(input_ids=labels.clamp(min=0), attention_mask=(labels >= 0).long(), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
