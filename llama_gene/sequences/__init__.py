"""Biology without torch: alphabets, readers, fragments, similarity and the simulator of the demo."""
