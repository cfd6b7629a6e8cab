"""Tasks, their sources, and the batches made from them."""
