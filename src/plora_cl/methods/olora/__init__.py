"""Orthogonal low-rank adaptation."""
