"""`labctl try`: compare two revisions of a git tree without a lab.yaml."""
