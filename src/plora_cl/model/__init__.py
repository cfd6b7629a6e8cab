"""One pretrained encoder with an adapter and a head per task."""
