#!/bin/sh
# Runs a command for which /dev/idm0, /dev/idm1 and /dev/idm2 are SCSI disks: the emulated drives
# d0, d1 and d2 in the folder $DRIVES. As root.
#
#   EMULATOR=… SG=… DRIVES=… disks.sh COMMAND …
#
# SG is the library of crates/idm-sg. The kernel has no driver for these nodes; nothing opens them.
set -eu
: "${EMULATOR:?}" "${SG:?}" "${DRIVES:?}"
export EMULATOR SG DRIVES
exec unshare --mount sh -euc '
	mount -t tmpfs -o mode=755 tmpfs /dev
	number=3
	for node in null zero full random urandom; do
		mknod -m 666 "/dev/$node" c 1 "$number"
		# 1:4 and 1:6 are others.
		if [ "$number" -lt 7 ]; then number=$((number + 2)); else number=$((number + 1)); fi
	done
	disks=
	for n in 0 1 2; do
		mknod "/dev/idm$n" b 240 "$n"
		disks="$disks /dev/idm$n=d$n"
	done
	"$EMULATOR" --dir "$DRIVES" sysfs "$DRIVES/sys" $disks
	for directory in class/block dev/block dev/char; do
		mount --bind "$DRIVES/sys/$directory" "/sys/$directory"
	done
	LD_PRELOAD="$SG" exec "$@"' sh "$@"
