"""Many runs that are compared: orders, seeds, variants."""
