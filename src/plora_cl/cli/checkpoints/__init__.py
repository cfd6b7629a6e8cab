"""``plora-cl checkpoints``."""
