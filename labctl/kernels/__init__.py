"""Kernels: sources, series and content-addressed images."""
