#!/bin/sh
# Makes what the lab's machines boot from, in OUTDIR: Debian's own kernel, its modules and an
# initramfs with the lab's agent. Nothing is done where nothing has changed.
#
#   prepare.sh OUTDIR AGENT
#
# The kernel is not installed on this machine, only unpacked.
set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

mkdir -p "$1"
out=$(cd "$1" && pwd)
agent=$(readlink -f "$2")
here=$(cd "$(dirname "$0")" && pwd)

packages="qemu-system-x86 kmod cpio xz-utils make gcc gdisk sg3-utils nvme-cli iproute2
	thin-provisioning-tools dmsetup e2fsprogs util-linux procps psmisc mdadm strace"
missing=
for package in $packages; do
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
		missing="$missing $package"
done
if [ -n "$missing" ]; then
	if [ "$(id -u)" != 0 ]; then
		echo "Packages are missing ($missing); run this as root to have them installed." >&2
		exit 1
	fi
	echo "Installing packages that the lab needs"
	apt-get -qq update
	# shellcheck disable=SC2086  # a list of words
	apt-get -qq install -y --no-install-recommends $missing </dev/null >/dev/null
fi

# What the machines need before they have a root file system, and what lvm2 would have loaded on
# demand. No sg: locking does not need it.
modules="virtio_pci 9pnet_virtio 9p overlay virtio_console virtio_scsi sd_mod virtio_net nvme-tcp
	dm-mod dm-thin-pool dm-snapshot dm-mirror dm-raid dm-zero dm-flakey dm-delay raid1"

# In a subshell, because it changes directories.
unpack_kernel() (
	cd "$out"
	rm -rf kernel && mkdir -p kernel/packages kernel/root
	apt-get -qq update
	release=$(apt-cache depends linux-image-amd64 |
		sed -n 's/^ *Depends: linux-image-\([0-9].*\)$/\1/p' | head -n 1)
	if [ -z "$release" ]; then
		echo "prepare.sh: this machine's package sources have no linux-image-amd64" >&2
		exit 1
	fi
	echo "Getting Debian's kernel $release"
	common=linux-headers-${release%-*}-common
	kbuild=$(apt-cache depends "linux-headers-$release" |
		sed -n 's/^ *Depends: \(linux-kbuild-.*\)$/\1/p' | head -n 1)
	(cd kernel/packages && apt-get -qq -o APT::Sandbox::User=root download \
		"linux-image-$release" "linux-headers-$release" "$common" "$kbuild")
	for package in kernel/packages/*.deb; do
		dpkg-deb -x "$package" kernel/root
	done
	rm -rf kernel/packages
	depmod -b kernel/root "$release"

	# The uncompressed kernel starts 3 s faster under emulation. It is an xz stream in vmlinuz.
	image=kernel/root/boot/vmlinuz-$release
	at=$(grep -obUaP '\xfd7zXZ\x00' "$image" | head -n 1 | cut -d: -f1)
	tail -c "+$((at + 1))" "$image" | xz -dc --single-stream >kernel/vmlinux 2>/dev/null || true
	if [ "$(head -c 4 kernel/vmlinux | tail -c 3)" != ELF ]; then
		echo "prepare.sh: no kernel was found in $image" >&2
		exit 1
	fi

	# A module needs the headers where Debian's own Makefiles look for them.
	headers=kernel/root/usr/src
	sed -i "s|/usr/src/|$out/$headers/|g" "$headers/linux-headers-$release/Makefile"
	rm -f "$headers/linux-headers-$release/scripts" "$headers/linux-headers-$release/tools"
	for kbuild in "$out"/kernel/root/usr/lib/linux-kbuild-*; do
		ln -s "$kbuild/scripts" "$headers/linux-headers-$release/scripts"
		ln -s "$kbuild/tools" "$headers/linux-headers-$release/tools"
		# The common headers have links of their own, to where kbuild would be installed.
		for link in scripts tools; do
			if [ -L "$headers/${common}/$link" ]; then
				ln -sfn "$kbuild/$link" "$headers/${common}/$link"
			fi
		done
	done
	rm -rf "$out/vsto" && cp -r "$here/vsto" "$out/vsto"
	if ! make -C "$headers/linux-headers-$release" M="$out/vsto" modules \
		>"$out/vsto/build.log" 2>&1; then
		tail -n 20 "$out/vsto/build.log" >&2
		exit 1
	fi
	echo "$release" >kernel/release
)

key=$(cat "$0" "$here"/vsto/* | sha256sum | cut -d' ' -f1)
if [ "$(cat "$out/kernel/done" 2>/dev/null)" != "$key" ]; then
	unpack_kernel
	echo "$key" >"$out/kernel/done"
fi

key=$( (cat "$out/kernel/done"; sha256sum <"$agent") | sha256sum | cut -d' ' -f1)
if [ "$(cat "$out/initramfs.done" 2>/dev/null)" != "$key" ]; then
	release=$(cat "$out/kernel/release")
	rm -rf "$out/initramfs"
	for dir in dev proc sys modules root host overlay; do
		mkdir -p "$out/initramfs/$dir"
	done
	cp "$agent" "$out/initramfs/init"
	chmod 755 "$out/initramfs/init"
	number=100
	for module in $modules; do
		modprobe -d "$out/kernel/root" -S "$release" --show-depends "$module"
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
		number=$((number + 1))
		cp "$file" "$out/initramfs/modules/$number-${file##*/}"
	done
	(cd "$out/initramfs" && find . | cpio --quiet -o -H newc) >"$out/initramfs.cpio"
	rm -rf "$out/initramfs"
	echo "$key" >"$out/initramfs.done"
fi
