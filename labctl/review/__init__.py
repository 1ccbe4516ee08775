"""`labctl series check`: what reviewers try on each step of a series."""
