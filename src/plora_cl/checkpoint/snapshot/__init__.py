"""What a run puts into a checkpoint and takes out of one."""
