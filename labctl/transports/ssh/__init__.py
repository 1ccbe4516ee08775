"""Commands over SSH: to a guest's own server, or to any machine that can be reached."""

from labctl.transports.ssh.address import SshAddress
from labctl.transports.ssh.transport import SshTransport

__all__ = ["SshAddress", "SshTransport"]
