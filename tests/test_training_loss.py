"""The loss at target positions equals the library's loss over all positions, gradients included."""

from __future__ import annotations

import peft
import pytest
import torch

from llama_gene.training.loss import TargetLoss
from tests.tiny_models import tiny_gpt2, tiny_llama


def _batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(3, 259, (3, 20), generator=generator)
    labels = torch.where(torch.rand(3, 20, generator=generator) < 0.2, input_ids, -100)
    labels[1] = -100  # a row without a target
    return {"input_ids": input_ids, "labels": labels}


@pytest.mark.parametrize("kind", ["llama", "tied", "gpt2", "lora"])
def test_target_loss_and_gradients_equal_the_models_own(kind: str) -> None:
    def build() -> torch.nn.Module:
        if kind == "gpt2":
            return tiny_gpt2()
        model = tiny_llama(tied=kind == "tied")
        if kind == "lora":
            torch.manual_seed(1)
            model = peft.get_peft_model(
                model, peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], modules_to_save=["embed_tokens", "lm_head"])
            )
        return model

    batch, gradients, losses = _batch(), [], []
    for ours in (False, True):
        model = build().train(False)
        if ours:
            loss_function = TargetLoss(model)
            loss_function.see(batch["labels"])
            outputs = model(input_ids=batch["input_ids"])
            assert outputs.logits.shape[0] == int((batch["labels"][:, 1:] != -100).sum())
            loss = loss_function(outputs, batch["labels"], num_items_in_batch=7)
            loss_function.remove()
        else:
            loss = model(**batch, num_items_in_batch=7).loss
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None})
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 4
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-4, atol=1e-6)


def test_a_batch_without_targets_has_loss_zero() -> None:
    model = tiny_llama()
    loss_function = TargetLoss(model)
    labels = torch.full((2, 5), -100)
    loss_function.see(labels)
    loss = loss_function(model(input_ids=torch.ones(2, 5, dtype=torch.long)), labels, num_items_in_batch=3)
    loss.backward()
    assert loss.item() == 0.0


def test_the_head_is_whole_again_after_removal() -> None:
    model = tiny_llama()
    loss_function = TargetLoss(model)
    loss_function.see(torch.full((1, 4), 5))
    loss_function.remove()
    assert model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.shape == (1, 4, 259)
