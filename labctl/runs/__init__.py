"""Runs on disk: samples and the folder that holds them."""
