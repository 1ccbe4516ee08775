"""This host: its facts, its load, its lock, git, and the state folder."""
