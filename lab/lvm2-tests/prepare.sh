#!/bin/sh
# Makes lvm2's own tests ready to run in the lab's machines. They are taken from lvm2's source as
# Debian has it, and stay below build/.
#
#   prepare.sh TREE OUTDIR
#
# TREE is the source of lvm2, in which lvm was built, OUTDIR gets what lvm2's "make install" would
# make of its tests; a folder above it has to be named lvm2-testsuite:
#   OUTDIR/shell   the tests
#   OUTDIR/lib     what they use
#   OUTDIR/shims   commands that are not in the lab's machines
# Three things are changed in them, all in ways that docs/lvm2-tests.md gives reasons for:
# - What is repeated a thousand times is repeated LAB_ROUNDS times, and twenty LVs are LAB_LVS.
# - The devices that the tests make begin LAB_HEADER_SHIFT MiB after the start of their drives.
# - The drives are discarded between tests, not written full of zeros.
set -eu
export LC_ALL=C

tree=$(cd "$1/test" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
here=$(cd "$(dirname "$0")" && pwd)

key=$(cat "$0" "$here"/shims/* "$tree/../VERSION" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$out/done" 2>/dev/null)" = "$key" ]; then
	exit 0
fi
rm -rf "$out"
lib=$out/lib
mkdir -p "$out/shell" "$lib" "$out/shims"

cp "$tree"/shell/*.sh "$out/shell/"
sed -i 's/{1\.\.1000}/$(seq "${LAB_ROUNDS:-1000}")/' "$out"/shell/stress_*
sed -i 's/{1\.\.20}/$(seq "${LAB_LVS:-20}")/' "$out"/shell/multi_hosts_lv_host*

for script in aux check get inittest lvm-wrapper utils; do
	cp "$tree/lib/$script.sh" "$lib/$script"
	chmod 755 "$lib/$script"
done
sed -i -e 's/local header_shift=1/local header_shift=${LAB_HEADER_SHIFT:-1}/' \
	-e 's/dd if=\/dev\/zero of="$d" bs=1MB/blkdiscard -f "$d" || &/' "$lib/aux"
grep -q 'header_shift=${LAB_HEADER_SHIFT' "$lib/aux"
grep -q 'blkdiscard -f "$d" || dd' "$lib/aux"
for flavour in udev-vanilla udev-lvmlockd-idm; do
	cp "$tree/lib/flavour-$flavour.sh" "$lib/flavour-$flavour"
done
cp "$tree/lib/mke2fs.conf" "$lib/"
for profile in cache-mq cache-smq thin-performance lvmdbusd; do
	cp "$tree/../conf/$profile.profile" "$lib/"
done
gcc -o "$lib/not" "$tree/lib/not.c"
for name in invalid fail should; do
	ln -s not "$lib/$name"
done
for command in lvm $(cat "$tree/../tools/.commands"); do
	ln -s lvm-wrapper "$lib/$command"
done
# lvm looks for it where it was told to be installed.
install -m 755 "$tree/../scripts/fsadm.sh" "$tree/../../sbin/fsadm"
# What lvm2's Makefile writes for installed tests. No udev: lvm makes the nodes itself.
{
	echo 'installed_testsuite=1'
	echo 'export DM_UDEV_SYNCHRONISATION='
	echo 'LVMPOLLD_PIDFILE=/run/lvmpolld.pid'
	echo 'DMEVENTD_PIDFILE=/run/dmeventd.pid'
	for command in thin_check thin_dump thin_repair thin_restore \
		cache_check cache_dump cache_repair cache_restore; do
		name=LVM_TEST_$(echo "$command" | tr '[:lower:]' '[:upper:]')_CMD
		echo "export $name=\${$name-/usr/sbin/$command}"
	done
	echo "export PATH=$out/shims:$lib:\$PATH"
} >"$lib/paths"
cut -f 1 -d ' ' <"$tree/../VERSION" >"$lib/version-expected"
cut -f 1 -d ' ' <"$tree/../VERSION_DM" >"$lib/dm-version-expected"
cp "$here"/shims/* "$out/shims/"
chmod 755 "$out"/shims/*
echo "$key" >"$out/done"
