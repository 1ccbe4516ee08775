# SPDX-License-Identifier: GPL-2.0-only
# Run by init in a guest that is to be reached by SSH, before the guest says that
# it is ready. The server's key is new at each boot; its public half goes to the
# console, which only the kernel of this guest can write: the lab takes no other.
KEY=/run/ssh_host_key
ADDRESS=10.0.2.15

say() {
	echo "<1>labctl: ssh $*" >/dev/kmsg
}

# Another's root has its own way home: its files stay as they are.
if [ -n "$1" ]; then
	mount -t tmpfs -o mode=0700 tmpfs /root
	mkdir -p -m 0700 /root/.ssh
	cp "$1/authorized_keys" /root/.ssh/authorized_keys
	# The server gives its commands a PATH of its own; this layer is the guest's.
	mkdir -p /usr/local/bin
	ln -sf "$1/freebench" "$1/integrity" /usr/local/bin/
fi
command -v ifconfig >/dev/null || ifconfig() { busybox ifconfig "$@"; }

ifconfig lo up
if ! ifconfig eth0 $ADDRESS netmask 255.255.255.0 up; then
	say "found no network card: the kernel needs guest/kconfig/ssh.config"
	exit 1
fi

# For sessions with a terminal.
mkdir -p /dev/pts
mountpoint -q /dev/pts || mount -t devpts devpts /dev/pts

public=$(dropbearkey -t ed25519 -f $KEY 2>/dev/null | grep '^ssh-ed25519 ')
set -- $public
say "host key $1 $2"

# Keys only, no forwarding; commands get the same environment as over the serial
# port; a window that does not hold up what is copied.
exec dropbear -s -j -k -e -W 1048576 -r $KEY -P /run/dropbear.pid -p $ADDRESS:22
