#!/bin/sh
# Makes the source archive build/dist/lvmlockd-idm-VERSION.tar.xz: what is committed, and all crates
# that Cargo.lock names, so that everything can be built and tested without a network. The same
# commit gives the same archive.
#
# From an archive that was unpacked it makes the same archive again.
set -eu
export LC_ALL=C
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=lvmlockd-idm-$version
out=$PWD/build/dist
rm -rf "$out/$name"
mkdir -p "$out/$name"

if [ -d vendor ]; then
	tar -c --exclude=./target --exclude=./build . | tar -x -C "$out/$name"
	date=$(date +%s -r Cargo.lock)
else
	git archive HEAD | tar -x -C "$out/$name"
	date=$(git log -1 --format=%ct HEAD)
	mkdir "$out/$name/.cargo"
	# Folders have versions in their names, as in cargo's own copies of the registry.
	(cd "$out/$name" && "$cargo" vendor --locked --quiet --versioned-dirs vendor >/dev/null)
	printf '%s\n' '[source.crates-io]' 'replace-with = "vendored-sources"' '' \
		'[source.vendored-sources]' 'directory = "vendor"' >"$out/$name/.cargo/config.toml"
	scripts/thin-vendor.sh "$out/$name"
fi
chmod -R u=rwX,go=rX "$out/$name"
tar -c -C "$out" --sort=name --mtime="@$date" --owner=0 --group=0 --numeric-owner \
	--format=gnu "$name" | xz -T2 -6 >"$out/$name.tar.xz"
rm -rf "${out:?}/$name"
echo "build/dist/$name.tar.xz"
