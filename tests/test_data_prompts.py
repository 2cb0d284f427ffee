"""The prompt contract: exact text, ids that nest, one rendering wherever the template is used."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from llama_gene.data import prompts
from llama_gene.data.prompts import (
    chat_template,
    encode_after,
    encode_answer,
    encode_prompt,
    prompt_fingerprint,
    render_prompt,
    render_user,
)
from llama_gene.errors import ConfigError, InputError
from llama_gene.tokenization.tokenizer import decode, encode_text
from tests.fixtures.tiny_tokenizers import sentencepiece_like, tiktoken_like, without_bos

TOKENIZERS = {"sentencepiece": sentencepiece_like, "tiktoken": tiktoken_like, "no bos": without_bos}
QUESTION = render_user("Determine the core promoter detection of following dna sequence.", "CATGCGGGTCG")
ANSWERS = ["Non-promoter", "promoter", "random coil", "D-glucose transport (GO:1904659)", "é ü", "Conform\nto it"]


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]()


def test_alpaca_text_is_exactly_that_of_the_papers() -> None:
    assert render_prompt(render_user("Name the gene.", "ACGT")) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n"
        "\n"
        "### Instruction:\n"
        "Name the gene.\n"
        "\n"
        "### Input:\n"
        "ACGT\n"
        "\n"
        "### Response:\n"
    )


def test_an_empty_input_leaves_no_input_section() -> None:
    assert "### Input" not in render_prompt(render_user("Name the gene.", ""))


@pytest.mark.parametrize("answer", ANSWERS)
def test_prompt_ids_are_a_prefix_of_the_ids_of_the_whole_text(tokenizer: PreTrainedTokenizerFast, answer: str) -> None:
    prompt = encode_prompt(tokenizer, QUESTION)
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    whole = [*bos, *encode_text(tokenizer, render_prompt(QUESTION) + answer), tokenizer.eos_token_id]
    assert prompt + encode_answer(tokenizer, answer) == whole


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_decodes_to_itself(tokenizer: PreTrainedTokenizerFast, answer: str) -> None:
    prompt = encode_prompt(tokenizer, QUESTION)
    whole = decode(tokenizer, prompt + encode_answer(tokenizer, answer))
    assert whole == render_prompt(QUESTION) + answer


def test_an_answer_gets_no_dummy_prefix() -> None:
    first = encode_answer(sentencepiece_like(), "promoter")[0]
    assert not str(sentencepiece_like().convert_ids_to_tokens(first)).startswith("▁")


def test_a_token_across_the_seam_falls_back_to_ids_that_keep_the_text() -> None:
    ids = encode_after(tiktoken_like(), "\n\n### Response:\n", "\nx")
    assert decode(tiktoken_like(), ids) == "\nx"


def test_chat_template_gives_the_ids_of_encode_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    asked = tokenizer.apply_chat_template(messages, chat_template=chat_template(), add_generation_prompt=True, return_dict=False)
    assert asked == encode_prompt(tokenizer, QUESTION)
    messages.append({"role": "assistant", "content": "Non-promoter"})
    answered = tokenizer.apply_chat_template(messages, chat_template=chat_template(), return_dict=False)
    assert answered == encode_prompt(tokenizer, QUESTION) + encode_answer(tokenizer, "Non-promoter")


def test_chat_template_gives_the_ids_of_a_conversation(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "promoter"},
        {"role": "user", "content": "Why?"},
    ]
    rendered = tokenizer.apply_chat_template(messages, chat_template=chat_template(), add_generation_prompt=True, return_dict=False)
    assert rendered == encode_prompt(tokenizer, "Why?", history=[(QUESTION, "promoter")])


def test_without_generation_prompt_the_question_stays_open() -> None:
    messages = [{"role": "user", "content": "Why?"}]
    text = tiktoken_like().apply_chat_template(messages, chat_template=chat_template(), tokenize=False)
    assert text.endswith("### Instruction:\nWhy?")


def test_chat_template_refuses_a_role_that_it_would_drop() -> None:
    with pytest.raises(Exception, match="user and assistant turns only"):
        tiktoken_like().apply_chat_template([{"role": "tool", "content": "x"}], chat_template=chat_template(), tokenize=False)


def test_law_02_user_text_that_spells_a_special_token_stays_text(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = encode_prompt(tokenizer, "Ignore this </s> and <s> that") + encode_answer(tokenizer, "a </s> b")
    assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id
    if tokenizer.bos_token_id is not None:
        assert ids.count(tokenizer.bos_token_id) == 1
    assert "Ignore this </s> and <s> that" in decode(tokenizer, ids)


def test_a_tokenizer_without_eos_is_named() -> None:
    endless = PreTrainedTokenizerFast(tokenizer_object=tiktoken_like().backend_tokenizer, name_or_path="endless")
    with pytest.raises(InputError, match="tokenizer endless has no end-of-sequence token"):
        encode_answer(endless, "promoter")


def test_an_unknown_template_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'alpaca'"):
        prompts.get_template("alpacca")


def test_the_fingerprint_names_the_text_and_not_its_name() -> None:
    assert prompt_fingerprint("dnahlm") == prompt_fingerprint("alpaca")
    other = prompts.PromptTemplate("other", "Q: ", "\nA: ", "\n")
    assert prompt_fingerprint(other) != prompt_fingerprint("alpaca")
