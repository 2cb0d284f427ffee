"""What a score must beat: from the majority answer to a neighbour by alignment and a frozen encoder, on the same splits."""
