"""Studies: many runs over methods, orders, variants and seeds, and their comparison."""
