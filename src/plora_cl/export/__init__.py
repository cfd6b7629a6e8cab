"""One task of a run as a model that loads without this package."""
