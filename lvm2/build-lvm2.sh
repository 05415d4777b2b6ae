#!/bin/sh
# Builds lvmlockd, lvmlockctl, lvmpolld and lvm from Debian's lvm2 source, with liblvmlockd_idm in
# place of lvm2's own lvmlockd-idm.c.
#
#   build-lvm2.sh VERSION LIBDIR OUTDIR
#
# VERSION is a Debian version of lvm2 (2.03.16-2 or 2.03.31-2), LIBDIR holds liblvmlockd_idm.so.
# The results are
#   OUTDIR/VERSION/sbin/lvm, lvmlockctl, lvmpolld   the same for both variants
#   OUTDIR/VERSION/shim/lvmlockd          lvm2/lvmlockd-idm.c compiled in the lvm2 tree
#   OUTDIR/VERSION/plain/lvmlockd         without that file; the library finds the layout itself
#   OUTDIR/VERSION/adopt/lvmlockd         2.03.31 only: as shim, with lvm2/patches
# All find the library in LIBDIR at run time. Nothing is done where nothing has changed.
set -eu

version=$1
mkdir -p "$3"
libdir=$(cd "$2" && pwd)
out=$(cd "$3" && pwd)/$version
here=$(cd "$(dirname "$0")" && pwd)

case $version in
2.03.16-2) suite=bookworm ;;
2.03.31-2) suite=trixie ;;
*)
	echo "build-lvm2.sh: no Debian release is known to have lvm2 $version" >&2
	exit 2
	;;
esac

# Variables that a calling make hands down must not reach lvm2's own Makefiles.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL
export LC_ALL=C

tree=$out/lvm2-${version%-*}
jobs=$(nproc)

# Runs a step of the build; its output is shown only if it fails.
step() {
	if ! "$@" >>"$out/build.log" 2>&1; then
		tail -n 40 "$out/build.log" >&2
		echo "build-lvm2.sh: failed: $* (all output: $out/build.log)" >&2
		exit 1
	fi
}

# The archive that this machine's own package sources name, so that a local mirror is used.
mirror() {
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v suite="$suite" -v own="$codename" '
			$3 == "main" && $2 == suite && !best { best = $1 }
			$3 == "main" && ($2 == own || $2 == "stable") && !next_best {
				next_best = $1
			}
			END { print best ? best : next_best }'
}

# apt with sources, lists and cache of its own; everything else as the machine has it.
private_apt() {
	apt-get -q -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" \
		-o APT::Sandbox::User=root "$@"
}

fetch() {
	uri=$(mirror)
	if [ -z "$uri" ]; then
		echo "build-lvm2.sh: this machine's apt sources name no Debian archive" >&2
		exit 1
	fi
	apt=$out/apt
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
	keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	echo "deb-src [signed-by=$keyring] $uri $suite main" >"$apt/sources.list"
	step private_apt update
	cd "$out"
	rm -rf "$tree"
	step private_apt source "lvm2=$version"
	cd "$here"
	rm -rf "$apt"
}

# What the outcome depends on. The library itself is found at run time.
key=$(cat "$0" "$here/build-lvmlockd" "$here/lvmlockd-idm.c" "$here"/patches/*.patch |
	sha256sum | cut -d' ' -f1)-$libdir
if [ "$(cat "$out/done" 2>/dev/null)" = "$key" ]; then
	exit 0
fi
rm -f "$out/done"
mkdir -p "$out"
: >"$out/build.log"

library="-L$libdir -llvmlockd_idm -Wl,-rpath,$libdir"
core=daemons/lvmlockd/lvmlockd-core.c
tree_key=$(sha256sum <"$0" | cut -d' ' -f1)
if [ "$(cat "$out/tree-done" 2>/dev/null)" != "$tree_key" ]; then
	echo "Getting lvm2 $version from Debian $suite"
	rm -f "$out/tree-done"
	fetch
	echo "Building lvm2 $version"
	step "$here/build-lvmlockd" --library "$library" "$tree" --sbindir="$out/sbin"
	# Debian's 2.03.16 has Makefiles that are newer than its configure; it leaves these two
	# open.
	set -- LIBSYSTEMD_CFLAGS= LIBSYSTEMD_LIBS=-lsystemd
	cd "$tree"
	step make -j"$jobs" tools "$@"
	step make -C daemons/lvmpolld "$@"
	mkdir -p "$out/sbin"
	cp tools/lvm daemons/lvmlockd/lvmlockctl daemons/lvmpolld/lvmpolld "$out/sbin/"
	cd "$here"
	cp "$tree/$core" "$out/core.lvm2"
	echo "$tree_key" >"$out/tree-done"
fi

# link VARIANT [OPTION]
link() {
	variant=$1
	shift
	step "$here/build-lvmlockd" --library "$library" "$@" "$tree"
	mkdir -p "$out/$variant"
	cp "$tree/daemons/lvmlockd/lvmlockd" "$out/$variant/lvmlockd"
}

echo "Linking lvmlockd $version with liblvmlockd_idm"
# An earlier run may have been ended between a patch and its undoing.
cp "$out/core.lvm2" "$tree/$core"
link plain --no-table
link shim
if [ "$version" = 2.03.31-2 ]; then
	for patch in "$here"/patches/*.patch; do
		step patch -d "$tree" -p1 -i "$patch"
	done
	link adopt
	cp "$out/core.lvm2" "$tree/$core"
fi
echo "$key" >"$out/done"
