"""Random encoders of two layers and width 32 with the three kinds of tokenizers that sequence models have; milliseconds each."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, EsmConfig, EsmModel, EsmTokenizer, PreTrainedTokenizerFast

RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO"
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "initializer_range": 0.3}


def save_esm(folder: Path, seed: int = 0, context: int = 66) -> Path:
    """Write an ESM-2 with its own tokenizer: a token a residue, written without spaces."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["<cls>", "<pad>", "<eos>", "<unk>", *RESIDUES, ".", "-", "<null_1>", "<mask>"]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    EsmTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(seed)
    config = EsmConfig(
        vocab_size=len(tokens), mask_token_id=len(tokens) - 1, pad_token_id=1, max_position_embeddings=context,
        position_embedding_type="rotary", token_dropout=True, emb_layer_norm_before=False, **SHAPE,
    )  # fmt: skip
    EsmModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def word_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words between [CLS] and [SEP], as BERT's are for letters or k-mers."""
    vocab = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    )


def save_bert(folder: Path, words: list[str], seed: int = 0, context: int = 64) -> Path:
    """Write a BERT whose vocabulary is these words."""
    tokenizer = word_tokenizer(words)
    torch.manual_seed(seed)
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=context, **SHAPE)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
