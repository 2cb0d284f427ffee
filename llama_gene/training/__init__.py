"""Training: a thin transformers.Trainer over packed rows, with callbacks and checkpoints that resume."""
