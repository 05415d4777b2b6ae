#!/bin/sh
# Makes lvm2's own tests that concern In-Drive Mutexes ready to run in the lab's machines. They are
# taken from lvm2's source as Debian has it, and stay below build/.
#
#   prepare.sh TREE OUTDIR
#
# TREE is the source of lvm2, OUTDIR gets what lvm2's "make install" would make of its tests; it has
# to be named lvm2-testsuite:
#   OUTDIR/shell   the tests
#   OUTDIR/lib     what they use
#   OUTDIR/shims   commands that are not in the lab's machines
# Two things are changed in them. What is repeated a thousand times is repeated LAB_ROUNDS times,
# and twenty LVs are LAB_LVS. And
# the devices that the tests make begin where their drives begin, not 1 MiB later, because the tests
# of a fabric's failure expect lvm to find the VG on the drives themselves afterwards.
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

for test in idm_ lvmlockd_failure multi_hosts_ stress_; do
	cp "$tree/shell/$test"* "$out/shell/"
done
sed -i 's/{1\.\.1000}/$(seq "${LAB_ROUNDS:-1000}")/' "$out"/shell/stress_*
sed -i 's/{1\.\.20}/$(seq "${LAB_LVS:-20}")/' "$out"/shell/multi_hosts_lv_host*

for script in aux check get inittest lvm-wrapper utils; do
	cp "$tree/lib/$script.sh" "$lib/$script"
	chmod 755 "$lib/$script"
done
sed -i 's/local header_shift=1/local header_shift=0/' "$lib/aux"
grep -q 'header_shift=0' "$lib/aux"
cp "$tree/lib/flavour-udev-lvmlockd-idm.sh" "$lib/flavour-udev-lvmlockd-idm"
gcc -o "$lib/not" "$tree/lib/not.c"
for name in invalid fail should; do
	ln -s not "$lib/$name"
done
for command in lvm $(cat "$tree/../tools/.commands"); do
	ln -s lvm-wrapper "$lib/$command"
done
# What lvm2's Makefile writes for installed tests. No udev: lvm makes the nodes itself.
cat >"$lib/paths" <<EOF
installed_testsuite=1
DM_UDEV_SYNCHRONISATION=
LVM_TEST_THIN_CHECK_CMD=
LVM_TEST_THIN_DUMP_CMD=
LVM_TEST_THIN_REPAIR_CMD=
LVM_TEST_THIN_RESTORE_CMD=
LVM_TEST_CACHE_CHECK_CMD=
LVM_TEST_CACHE_DUMP_CMD=
LVM_TEST_CACHE_REPAIR_CMD=
LVM_TEST_CACHE_RESTORE_CMD=
export DM_UDEV_SYNCHRONISATION LVM_TEST_THIN_CHECK_CMD LVM_TEST_THIN_DUMP_CMD
export LVM_TEST_THIN_REPAIR_CMD LVM_TEST_THIN_RESTORE_CMD LVM_TEST_CACHE_CHECK_CMD
export LVM_TEST_CACHE_DUMP_CMD LVM_TEST_CACHE_REPAIR_CMD LVM_TEST_CACHE_RESTORE_CMD
export PATH=$out/shims:$lib:\$PATH
EOF
cut -f 1 -d ' ' <"$tree/../VERSION" >"$lib/version-expected"
cut -f 1 -d ' ' <"$tree/../VERSION_DM" >"$lib/dm-version-expected"
cp "$here"/shims/* "$out/shims/"
chmod 755 "$out"/shims/*
echo "$key" >"$out/done"
