#!/bin/sh
# Prints the compiler flags that keep this machine's paths out of the library and of its debug
# information: the same source gives the same file wherever it is built, from a vendored archive or
# from the registry.
set -eu
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo} rustc=${RUSTC:-rustc}

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
source=/usr/src/lvmlockd-idm-$version

# A later flag wins over an earlier one.
printf '%s\n' "--remap-path-prefix=$(pwd -P)=$source"
if [ ! -d vendor ]; then
	registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
	# The folder of an index has a name that only cargo knows.
	[ -d "$registry" ] || "$cargo" fetch --locked --quiet >&2
	for index in "$registry"/*/; do
		printf '%s\n' "--remap-path-prefix=${index%/}=$source/vendor"
	done
fi
# Where the standard library's source is installed, the compiler names it by its place there.
commit=$("$rustc" -vV | sed -n 's/^commit-hash: //p')
printf '%s\n' "--remap-path-prefix=$("$rustc" --print sysroot)/lib/rustlib/src/rust=/rustc/$commit"
