"""Torch models: load or build a base, grow its embeddings, attach adapters. Shapes: B rows, T tokens, V vocabulary, D width."""
