"""Generative replay: texts of earlier tasks, written by a language model."""
