"""Entry point of `python -m labctl.cli`."""

from labctl.cli import main

main()
