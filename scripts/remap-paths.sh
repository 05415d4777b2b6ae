#!/bin/sh
# Prints a value for CARGO_ENCODED_RUSTFLAGS: the words of RUSTFLAGS, and flags that keep this
# machine's paths out of the library and of its debug information. So the same source gives the same
# file wherever it is built, from a vendored archive or from the registry.
set -eu
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo} rustc=${RUSTC:-rustc}

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
source=/usr/src/lvmlockd-idm-$version

separator=$(printf '\037')
flags=
add() {
	flags=$flags${flags:+$separator}$1
}
remap() {
	add "--remap-path-prefix=$1=$2"
}

for word in ${RUSTFLAGS:-}; do
	add "$word"
done
# A later flag wins over an earlier one.
remap "$(pwd -P)" "$source"
if [ ! -d vendor ]; then
	registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
	# The folder of an index has a name that only cargo knows.
	[ -d "$registry" ] || "$cargo" fetch --locked --quiet >&2
	for index in "$registry"/*/; do
		remap "${index%/}" "$source/vendor"
	done
fi
# Where the standard library's source is installed, the compiler names it by its place there.
commit=$("$rustc" -vV | sed -n 's/^commit-hash: //p')
remap "$("$rustc" --print sysroot)/lib/rustlib/src/rust" "/rustc/$commit"
printf '%s\n' "$flags"
