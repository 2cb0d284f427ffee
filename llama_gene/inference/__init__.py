"""What a trained model is asked and how its answers are judged: scoring, generation, metrics, baselines, bits per letter."""
