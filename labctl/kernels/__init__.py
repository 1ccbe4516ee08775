"""Kernels: sources, series, builds and content-addressed images."""
