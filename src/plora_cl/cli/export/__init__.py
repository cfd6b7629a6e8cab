"""``plora-cl export``: a task for other libraries."""
