"""A lab in one file, to measure on a machine without labctl; and its results brought home."""
