"""Scores, the run log and the results of a run."""
