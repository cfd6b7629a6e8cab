"""The loop, the run that owns it, and the public trainer."""
