"""The parts of the checkpoint benchmark; `benchmarks/checkpointing.py` runs them."""
