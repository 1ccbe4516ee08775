"""The static site of all runs and nightly runs."""
