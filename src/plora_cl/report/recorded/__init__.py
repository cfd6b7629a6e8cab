"""What a run left in its folder, read for a report."""
