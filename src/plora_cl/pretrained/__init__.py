"""Models that others trained: loading them as data, and what their adapters have in common."""
