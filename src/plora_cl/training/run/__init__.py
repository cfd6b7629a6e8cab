"""One run: the phases of its tasks, the loop, and what is saved of them."""
