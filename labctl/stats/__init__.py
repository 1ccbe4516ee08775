"""From samples to comparisons."""
