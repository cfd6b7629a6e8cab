"""What a run is compared with: classifiers without an encoder."""
