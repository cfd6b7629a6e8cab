"""Durable checkpoints: bytes, contents, retention and meaning."""
