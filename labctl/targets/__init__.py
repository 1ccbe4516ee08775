"""Targets: physical or virtual machines reached by SSH that change kernels by kexec."""
