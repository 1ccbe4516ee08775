"""labctl says what a patch series changes in a running NUMA kernel, and how sure that is."""

__version__ = "0.1.0"
