"""From text to rows: corpus and packing for pretraining, tasks, instructions and prompts for instruction tuning."""
