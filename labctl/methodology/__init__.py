"""Simulations that validate the statistical method."""
