#!/bin/sh
# Installs the Debian packages that building and testing need, if they are missing.
#
#   install-build-deps.sh         for building the library and for the demo
#   install-build-deps.sh check   for all tests, too
#
# An installed Rust toolchain is used if it is new enough.
set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

rust_minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")

# For the library; for lvm2; to get lvm2's source and the crates.
packages="gcc libc6-dev make pkg-config
	libaio-dev libblkid-dev libsystemd-dev libudev-dev
	ca-certificates debian-archive-keyring dpkg-dev patch xz-utils"
if [ "${1:-}" = check ]; then
	packages="$packages codespell g++ groff-base man-db strace systemd valgrind"
fi

at_least() {
	dpkg --compare-versions "$1" ge "$2"
}

installed() {
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

have_cargo() {
	version=$(cargo --version 2>/dev/null | cut -d' ' -f2)
	[ -n "$version" ] && at_least "$version" "$rust_minimum"
}

# Debian 12 has a current toolchain under separate names, besides one that is too old.
rust_packages() {
	candidate=$(apt-cache policy cargo | sed -n 's/^ *Candidate: //p')
	if at_least "${candidate%%+*}" "$rust_minimum"; then
		echo cargo rustc
		[ "${1:-}" != check ] || echo rustfmt rust-clippy
	else
		echo cargo-web rustc-web
		[ "${1:-}" != check ] || echo rustfmt-web rust-web-clippy
	fi
}

missing=
for package in $packages; do
	installed "$package" || missing="$missing $package"
done
want_rust=
have_cargo || want_rust=yes
if [ "${1:-}" = check ] &&
	! { cargo clippy --version && cargo fmt --version; } >/dev/null 2>&1; then
	want_rust=yes
fi
if [ -z "$missing$want_rust" ]; then
	exit 0
fi

if [ "$(id -u)" != 0 ]; then
	echo "Packages are missing" \
		"($missing${want_rust:+ and a Rust toolchain from $rust_minimum on});" \
		"run this as root to have them installed." >&2
	exit 1
fi
echo "Installing packages that the build needs"
apt-get -qq update
if [ -n "$want_rust" ]; then
	if command -v rustup >/dev/null; then
		echo "The Rust toolchain that rustup manages here is older than $rust_minimum," \
			"or has no clippy or rustfmt; please update it." >&2
		exit 1
	fi
	missing="$missing $(rust_packages "${1:-}")"
fi
# shellcheck disable=SC2086  # a list of words
apt-get -qq install -y --no-install-recommends $missing </dev/null >/dev/null
have_cargo || {
	echo "No Rust toolchain from $rust_minimum on can be had from this machine's package" \
		"sources." >&2
	exit 1
}
