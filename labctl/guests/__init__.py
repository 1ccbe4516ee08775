"""Guests: topology, initramfs, launchers and their life."""
