"""Predictions over HTTP; requires the extra ``serve``."""
