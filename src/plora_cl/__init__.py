"""Progressive LoRA for continual learning."""
