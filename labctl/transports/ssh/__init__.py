"""Commands over SSH, to a guest or to a target.

Importing this package is quick; importing `transport` also imports fabric.
"""

from labctl.transports.ssh.address import SshAddress

__all__ = ["SshAddress"]
