# SPDX-License-Identifier: GPL-2.0-only
# Run by init in a guest with `transport: ssh`, before the ready line. The server's
# key is new at each boot. Its public key is printed to the console, which only this
# guest can write; labctl accepts no other key.
KEY=/run/ssh_host_key
ADDRESS=10.0.2.15

say() {
	echo "<1>labctl: ssh $*" >/dev/kmsg
}

# With another init's root, /root is an overlay: the host's files are not changed.
if [ -n "$1" ]; then
	mount -t tmpfs -o mode=0700 tmpfs /root
	mkdir -p -m 0700 /root/.ssh
	cp "$1/authorized_keys" /root/.ssh/authorized_keys
	# The server sets its own PATH for commands; /usr/local is an overlay of the guest.
	mkdir -p /usr/local/bin
	ln -sf "$1/freebench" "$1/integrity" /usr/local/bin/
fi
command -v ifconfig >/dev/null || ifconfig() { busybox ifconfig "$@"; }

ifconfig lo up
# The only network card. udev, which virtme-ng runs if the host has it, may have renamed it.
for card in /sys/class/net/*/device; do
	card=${card%/device}
	card=${card##*/}
done
if ! ifconfig "$card" $ADDRESS netmask 255.255.255.0 up; then
	say "no network card found: the kernel needs guest/kconfig/ssh.config"
	exit 1
fi

# For sessions with a terminal.
mkdir -p /dev/pts
mountpoint -q /dev/pts || mount -t devpts devpts /dev/pts

public=$(dropbearkey -t ed25519 -f $KEY 2>/dev/null | grep '^ssh-ed25519 ')
set -- $public
say "host key $1 $2"

# Keys only, no forwarding; commands have the same environment as over the serial
# port; a window large enough for fast copies.
exec dropbear -s -j -k -e -W 1048576 -r $KEY -P /run/dropbear.pid -p $ADDRESS:22
