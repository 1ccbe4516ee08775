"""Whether kernels and series are what they should be, apart from how fast they are."""
