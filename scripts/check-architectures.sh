#!/bin/sh
# The library compiles for the other 64-bit architectures that distributions have, and its own tests
# pass with musl, as far as this machine can get their standard libraries.
#
# A 32-bit target is refused in one sentence.
set -eu
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}

# The standard library of a target, which rustup can get, and packages of a distribution may have.
has_standard_library() {
	rustup target add "$1" >/dev/null 2>&1 ||
		[ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]
}

for target in aarch64-unknown-linux-gnu powerpc64le-unknown-linux-gnu \
	riscv64gc-unknown-linux-gnu s390x-unknown-linux-gnu; do
	if has_standard_library "$target"; then
		"$cargo" check --locked --quiet -p lvmlockd-idm --target "$target"
		echo "compiles for $target"
	else
		echo "not tried, there is no standard library for it: $target"
	fi
done
musl=$(uname -m)-unknown-linux-musl
if has_standard_library "$musl"; then
	"$cargo" test --locked --quiet -p lvmlockd-idm --features emulator --lib --target "$musl"
	echo "its tests pass with $musl"
else
	echo "not tried, there is no standard library for it: $musl"
fi
if has_standard_library i686-unknown-linux-gnu; then
	! why=$("$cargo" check --locked --quiet -p lvmlockd-idm \
		--target i686-unknown-linux-gnu 2>&1) || {
		echo "a 32-bit target is not refused" >&2
		exit 1
	}
	echo "$why" | grep -o -m 1 'liblvmlockd_idm is for 64-bit systems only'
fi
