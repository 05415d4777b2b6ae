#!/bin/sh
# Runs cargo of the oldest supported Rust (rust-version in Cargo.toml) with these arguments.
#
# This is Debian 13's Rust. On a machine with another one, it uses one that rustup has, or a package
# of Debian; as root it installs this package, which replaces no other.
set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
cd "$(dirname "$0")/.."

minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

# Whether this command is a cargo of the oldest supported release.
fits() {
	case $("$@" --version 2>/dev/null) in
	"cargo $minimum."*) ;;
	*) return 1 ;;
	esac
}

# The version of a package of that release, if Debian has one.
version_of() {
	apt-cache madison "$1" | awk -v begin="$minimum." -F' *[|] *' \
		'index($2, begin) == 1 { print $2; exit }'
}

# Debian 12 has it under separate names.
install_package() {
	[ "$(id -u)" = 0 ] && [ ! -e /usr/bin/cargo ] && [ ! -e /usr/bin/rustc ] || return 0
	apt-get -qq update
	for suffix in "" -web; do
		cargo=$(version_of "cargo$suffix")
		rustc=$(version_of "rustc$suffix")
		[ -n "$cargo" ] && [ -n "$rustc" ] || continue
		set -- "cargo$suffix=$cargo" "rustc$suffix=$rustc"
		[ -z "$suffix" ] || set -- "$@" "libstd-rust-web-dev=$rustc"
		apt-get -qq install -y --no-install-recommends "$@" </dev/null >/dev/null
		return
	done
}

fits /usr/bin/cargo || fits cargo || {
	toolchain=$(rustup toolchain list 2>/dev/null |
		sed -n "s/^\($minimum[.-][^ ]*\).*/\1/p" | head -n 1)
	[ -n "$toolchain" ] || install_package
}
if fits cargo; then
	exec cargo "$@"
elif fits /usr/bin/cargo; then
	PATH=/usr/bin:$PATH exec /usr/bin/cargo "$@"
elif [ -n "${toolchain:-}" ]; then
	exec rustup run "$toolchain" cargo "$@"
fi
echo "Rust $minimum is neither here nor to be had from this machine's package sources." >&2
exit 1
