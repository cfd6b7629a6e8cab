"""Texts written by a language model: prompts, sampling, and a cache of what was sampled."""
