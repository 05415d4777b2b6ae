#!/bin/sh
# Takes out of a source archive what is in crates that no Linux target needs: a third of the
# archive, with compiled libraries for other systems in it. Their manifests stay, because cargo
# wants to see every crate that Cargo.lock names.
#
#   thin-vendor.sh FOLDER
set -eu
export LC_ALL=C
cd "$1"
cargo=${CARGO:-cargo}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# All that any feature of any package needs, in libraries, programs, tests and build scripts.
for target in x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu riscv64gc-unknown-linux-gnu \
	s390x-unknown-linux-gnu powerpc64le-unknown-linux-gnu x86_64-unknown-linux-musl; do
	"$cargo" tree --locked --offline --workspace --all-features --edges all --prefix none \
		--target "$target" --format '{p}'
done | sed -n 's/^\([^ ]*\) v\([^ ]*\).*/\1-\2/p' | sort -u >"$work/needed"

for crate in vendor/*/; do
	crate=${crate%/}
	! grep -q -x -F "${crate#vendor/}" "$work/needed" || continue
	checksum=$(sed -n 's/.*"package":"\([0-9a-f]*\)".*/\1/p' "$crate/.cargo-checksum.json")
	[ -n "$checksum" ]
	find "$crate" -mindepth 1 -maxdepth 1 ! -name Cargo.toml ! -name .cargo-checksum.json \
		-exec rm -rf {} +
	mkdir "$crate/src"
	: >"$crate/src/lib.rs"
	printf '{"files":{},"package":"%s"}' "$checksum" >"$crate/.cargo-checksum.json"
done
