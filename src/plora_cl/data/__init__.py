"""Where tasks come from, and the batches they become."""
