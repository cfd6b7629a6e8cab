"""Commands that look at folders: results, status, evaluate, cache."""
