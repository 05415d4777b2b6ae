#!/bin/bash
# Makes the root file system of the scenario `readme`: an empty Debian 13 host, on which the first
# commands of README's "Run it" have been given: those that install the packages and build lvmlockd.
# They need a network and a fast processor, so they are given in a namespace of this machine. As
# root.
#
#   prepare.sh PACKAGES OUTDIR
#
# PACKAGES has the Debian packages that scripts/packages.sh made. Nothing is done where nothing has
# changed.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

fail() {
	echo "prepare.sh: $*" >&2
	exit 1
}

packages=$(readlink -f "$1")
mkdir -p "$2"
out=$(cd "$2" && pwd)
cd "$(dirname "$0")/../.."

compgen -G "$packages/*.deb" >/dev/null ||
	fail "there are no packages in $1: run \`make packages SUITES=trixie\`"

# The first three commands. The scenario gives the others, on the machines.
commands=$(awk '/^## Run it/ { on = 1 }
	on && /^    / { print substr($0, 5); seen++ }
	seen && !/^    / || seen == 3 { exit }' README.md)
[[ $commands == *"apt-get install"*"apt-get source lvm2"*build-lvmlockd* ]] ||
	fail "README begins with other commands: $commands"

key=$( (cat "$0" scripts/clean-root.sh "$packages"/*.deb; echo "$commands") | sha256sum)
[ "$(cat "$out/done" 2>/dev/null)" != "$key" ] || exit 0
rm -f "$out/done"

. scripts/clean-root.sh
if [ ! -f "$out/empty.tar" ]; then
	echo "Making an empty Debian 13 host"
	# What every installed Debian has and a container does not need.
	bootstrap trixie "$out/new.tar" --variant=apt \
		--include=iproute2,kmod,systemd-sysv,udev,util-linux
	mv "$out/new.tar" "$out/empty.tar"
fi
rm -rf "$out/root"
mkdir "$out/root"
tar -x -C "$out/root" -f "$out/empty.tar"
cp "$packages"/*.deb "$out/root/root/"
echo "Giving README's first commands"
within "$out/root" online "apt-get -qq update; cd /root; $commands" >"$out/build.log" 2>&1 ||
	fail "see $out/build.log"
echo "$key" >"$out/done"
