"""Targets: hosts behind SSH that change kernels by kexec."""
