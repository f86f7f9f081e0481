"""Models in the wheel, and the catalog of names."""
