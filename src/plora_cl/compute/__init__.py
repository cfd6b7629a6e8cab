"""The machine that a run computes on: devices, determinism, random state, its fingerprint."""
