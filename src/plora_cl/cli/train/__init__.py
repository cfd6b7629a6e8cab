"""``plora-cl train`` and ``plora-cl floor``."""
