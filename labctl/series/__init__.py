"""Patch series: from folders, mailboxes and git to steps, in one form."""
