"""`labctl nightly`: the history of a lab's nightly runs."""
