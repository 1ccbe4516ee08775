"""Workloads' files: what a command needs in a guest or on a target, and how it starts there."""
