"""What people do with checkpoints."""
