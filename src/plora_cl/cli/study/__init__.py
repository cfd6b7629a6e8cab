"""``plora-cl protocol``."""
