"""Results: stored samples and what they say."""
