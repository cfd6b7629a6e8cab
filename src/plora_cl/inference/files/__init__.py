"""Predicting files: read as streams, written whole, and resumed where they were interrupted."""
