"""Measure blocks on the workers of a Dask scheduler; only this package imports distributed."""
