"""Tasks whose rows are made from other files: coding sequences, annotated genomes, proteomes. `tables` says how a task asks for them."""
