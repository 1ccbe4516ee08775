"""`labctl bisect`: the patch that changed a metric or broke a check."""
