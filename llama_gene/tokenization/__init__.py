"""Vocabularies: train gene pieces, splice them behind a base model's tokens, load, encode, report. Nothing here imports torch.

Read in this order: `bpe` (training and the reference merge loop), `sentencepiece_splice`, `tiktoken_splice` and `json_splice`
(one file a base format), `tokenizer` (what the rest of the package uses), `report`.
"""
