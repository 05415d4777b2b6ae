#!/bin/sh
# Builds lvmlockd of every lvm2 release with the installed or a given library, alone and together
# with sanlock and dlm, with the layout table and without, and starts each to see which layout the
# library finds: the table in docs/lvm2-releases.md, row by row. Takes an hour.
#
#   lvm2-releases.sh LIBDIR CLONE [TAG ...]
#
# LIBDIR has liblvmlockd_idm.so and CLONE is a git clone of lvm2. Needs the headers of sanlock and
# dlm, and libaio, libblkid, libsystemd, libudev.
set -eu
libdir=$(cd "$1" && pwd)
clone=$2
shift 2
here=$(cd "$(dirname "$0")/.." && pwd)
page=$here/docs/lvm2-releases.md
[ $# -gt 0 ] || set -- $(git -C "$clone" tag --list 'v2_03_*' | sort -V |
	awk -F_ '$3 + 0 >= 13') HEAD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
tree=$work/tree
passed=0 failed=0

# What the page says of a release: offset of pvs, adopt arguments.
expected() {
	awk -F' *[|] *' -v name="2.03.$1" \
		'$2 == name { print "lockspace_pvs: " $3 ", adopt_args: " $4 }' "$page"
}

found() {
	{
		LD_LIBRARY_PATH=$libdir:$tree/libdm/ioctl timeout -s KILL 2 \
			"$tree/daemons/lvmlockd/lvmlockd" --test -D -g idm -p "$work/pid" \
			-s "$work/socket" 2>&1 || :
	} 2>/dev/null | sed -n 's/.*structures are known: Layout { \(.*\), lvm_path.*/\1/p'
}

# try WHAT LOCK-MANAGERS OPTION ...
try() {
	what=$1 managers=$2
	shift 2
	if "$here/lvm2/build-lvmlockd" --library "-L$libdir -llvmlockd_idm" "$@" \
		>"$work/out" 2>&1; then
		layout=$(found)
		linked=$(readelf --dynamic "$tree/daemons/lvmlockd/lvmlockd" |
			grep -c -e 'NEEDED.*libsanlock' -e 'NEEDED.*libdlm') || :
		if [ "$layout" = "$(expected "$release")" ] && [ "$linked" -ge "$managers" ]; then
			passed=$((passed + 1))
			return
		fi
		echo "layout: $layout; libraries of other lock managers: $linked" >>"$work/out"
	fi
	failed=$((failed + 1))
	echo "2.03.$release $what:"
	tail -n 15 "$work/out"
}

for tag; do
	rm -rf "$tree"
	mkdir "$tree"
	git -C "$clone" archive "$tag" | tar -x -C "$tree"
	release=$(sed -n '1s/^2\.03\.\([0-9]*\)(.*/\1/p' "$tree/VERSION")
	try "alone" 0 "$tree"
	try "alone, without table" 0 --no-table "$tree"
	try "with sanlock and dlm" 2 "$tree" --enable-lvmlockd-sanlock --enable-lvmlockd-dlm
	try "with sanlock and dlm, without table" 2 --no-table "$tree"
	echo "2.03.$release ($tag): $passed passed, $failed failed so far"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
