"""Parts of the pytest plugin: cases, guests, leases, report sections of failed tests."""
