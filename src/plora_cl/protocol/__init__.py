"""Sets of runs: methods x orders x variants x seeds, started, watched and summed up."""
