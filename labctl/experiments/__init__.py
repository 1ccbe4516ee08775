"""Experiments: plan, tunables and the runner."""
