"""What the pytest plugin is made of: cases, guests, leases, and what a failed test tells."""
