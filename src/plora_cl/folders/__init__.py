"""What the folder of an experiment tells without its data, its model or torch."""
