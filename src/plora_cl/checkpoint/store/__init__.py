"""Which checkpoints and objects are kept."""
