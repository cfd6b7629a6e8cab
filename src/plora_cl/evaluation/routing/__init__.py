"""Choosing the task of a text whose task is not known."""
