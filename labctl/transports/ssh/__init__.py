"""Commands over SSH: to a guest's own server, or to any machine that can be reached.

An address costs nothing to import; `transport` brings fabric with it.
"""

from labctl.transports.ssh.address import SshAddress

__all__ = ["SshAddress"]
