"""`python -m labctl`: the `labctl` program."""

from labctl.cli import main

main()
