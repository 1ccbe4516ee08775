"""`labctl doctor`: test whether this host can run a lab."""
