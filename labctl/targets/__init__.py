"""Machines that are not guests: reached by SSH, their kernel changed by kexec."""
