"""`labctl doctor`: what this host can do for a lab, tried and not assumed."""
