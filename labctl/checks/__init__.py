"""Correctness checks of kernels and patch series: verify, series check, bisect --check."""
