"""Label probabilities against the softmax of label scores, and a conversation against the chat template."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from llama_gene.data.askable import AskableTask, check_row
from llama_gene.data.prompts import chat_template, encode_answer, encode_prompt
from llama_gene.errors import InputError
from llama_gene.inference import chat_session
from llama_gene.inference.ask import ask
from llama_gene.inference.chat_session import Conversation, check_chat_request
from llama_gene.inference.scoring import score_labels
from tests.tiny_models import tiny_gpt2, tiny_llama, tiny_tokenizer

TASK = AskableTask("core", "core promoter", "classification", ("dna",), ("Non-promoter", "promoter", "no"), "Is it?", "{0}")


def test_probabilities_are_the_softmax_of_the_labels_scores() -> None:
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    rows = [check_row(TASK, [letters]) for letters in ("ACGT", "GGGGCC", "T" * 90)]
    prompts = [encode_prompt(tokenizer, f"Is it?\n\n### Input:\n{row.sequences[0]}") for row in rows]
    scores = score_labels(model, prompts, [encode_answer(tokenizer, label) for label in TASK.labels], vocab_size=len(tokenizer))
    answers = ask(model, tokenizer, TASK, rows)
    assert np.allclose([answer.probabilities for answer in answers], softmax(scores, axis=1), atol=1e-9, rtol=0)
    assert np.allclose([answer.log_likelihoods for answer in answers], scores, atol=1e-9, rtol=0)
    assert [answer.prompt_tokens for answer in answers] == [len(prompt) for prompt in prompts]
    assert answers[0].label == TASK.labels[int(np.argmax(scores[0]))]
    assert sum(answers[1].as_dict()["probabilities"].values()) == pytest.approx(1)
    assert ask(model, tokenizer, TASK, []) == []


def test_a_question_that_does_not_fit_is_refused_with_its_numbers_and_nothing_is_asked() -> None:
    model, tokenizer = tiny_gpt2(context=256), tiny_tokenizer()
    rows = [check_row(TASK, ["ACGT"], "a"), check_row(TASK, ["ACGT" * 60], "b")]
    room = len(encode_prompt(tokenizer, f"Is it?\n\n### Input:\n{rows[1].sequences[0]}")) + len("Non-promoter") + 1
    with pytest.raises(InputError, match=rf"b \(240 letters\) needs {room} tokens.*at most the model's 256.*never cut"):
        ask(model, tokenizer, TASK, rows)
    assert len(ask(model, tokenizer, TASK, rows[:1])) == 1


def test_a_conversation_renders_what_the_chat_template_renders() -> None:
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    tokenizer.chat_template = chat_template()
    conversation = Conversation(model, tokenizer, max_new_tokens=3)
    conversation.history = [("What is a gene?", "A stretch of DNA."), ("And a codon?", "Three bases.")]
    rendered = tokenizer.apply_chat_template(
        [*conversation.messages(), {"role": "user", "content": "More?"}], add_generation_prompt=True, tokenize=False
    )
    assert conversation.encode("More?") == tokenizer(rendered, add_special_tokens=False)["input_ids"]


def test_an_interrupted_answer_stays_as_far_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    def pieces(*_: object) -> object:
        yield "one "
        raise KeyboardInterrupt

    monkeypatch.setattr(chat_session, "stream_answer", pieces)
    conversation = Conversation(None, tiny_tokenizer())
    with pytest.raises(KeyboardInterrupt):
        conversation.ask("What?")
    assert conversation.history == [("What?", "one")]


def test_a_refused_message_is_not_remembered() -> None:
    conversation = Conversation(tiny_gpt2(context=256), tiny_tokenizer(), max_new_tokens=4)
    with pytest.raises(InputError, match="256"):
        conversation.ask("A" * 300)
    with pytest.raises(InputError, match="at most 1,000,000"):
        conversation.ask("A" * 1_000_001)
    assert conversation.history == []
    assert isinstance(conversation.ask("A"), str) and len(conversation.history) == 1


def test_a_chat_request_beyond_the_context_or_the_template_is_refused() -> None:
    model, tokenizer = tiny_gpt2(context=256), tiny_tokenizer()
    said = [{"role": "user", "content": "What?"}]
    with pytest.raises(InputError, match="cannot be rendered"):
        check_chat_request(model, tokenizer, {"messages": said})  # it has no chat template
    tokenizer.chat_template = chat_template()
    num_tokens = len(encode_prompt(tokenizer, "What?"))
    check_chat_request(model, tokenizer, {"messages": said, "max_tokens": 256 - num_tokens})
    check_chat_request(model, tokenizer, {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}]}]})
    with pytest.raises(InputError, match=rf"{num_tokens} tokens, {257 - num_tokens} more .*at most the model's 256 together"):
        check_chat_request(model, tokenizer, {"messages": said, "max_tokens": 257 - num_tokens})
    with pytest.raises(InputError, match="user and assistant turns only"):
        check_chat_request(model, tokenizer, {"messages": [{"role": "system", "content": "Be brief."}]})
    for messages in (None, [], "text", [3], [{"role": "user"}], [{"role": "user", "content": [{"type": "image_url"}]}]):
        with pytest.raises(InputError):
            check_chat_request(model, tokenizer, {"messages": messages})
    for room in (-1, "many", 2.5):
        with pytest.raises(InputError, match="max_tokens"):
            check_chat_request(model, tokenizer, {"messages": said, "max_tokens": room})
