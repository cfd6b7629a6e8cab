"""Texts as tokens, and their cache."""
