"""``plora-cl predict``: texts or files, with what a run learned."""
