"""``plora-cl study``."""
