"""lab.yaml: from its text to a `Lab`."""
