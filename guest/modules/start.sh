# SPDX-License-Identifier: GPL-2.0-only
# Run by init before roots and the SSH server, in guests with modules of a distribution's kernel. The
# names of the files begin with their number in the order of loading.
for module in "/lib/modules/$(uname -r)/labctl"/*.ko; do
	if [ -e "$module" ] && ! insmod "$module"; then
		echo "<1>labctl: cannot load ${module##*/}" >/dev/kmsg
	fi
done
