#!/bin/sh
# Builds what is shipped twice, in two folders, with other numbers of jobs, time zones, languages
# and masks, and compares the files, debug information included.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# build FOLDER JOBS: the tree as it is, without what builds make.
build() {
	mkdir -p "$1"
	tar -c --exclude=./target --exclude=./build --exclude=./.git . | tar -x -C "$1"
	CARGO_BUILD_JOBS=$2 make --no-print-directory -C "$1" all >"$work/log" 2>&1 || {
		tail -n 20 "$work/log" >&2
		exit 1
	}
	(cd "$1/build/shipped" && find . -type f | LC_ALL=C sort | xargs sha256sum)
}

(umask 022 && TZ=UTC LC_ALL=C build "$work/a" 1) >"$work/first"
(umask 077 && TZ=Asia/Tokyo LC_ALL=C.UTF-8 build "$work/another/longer path" 2) >"$work/second"
cat "$work/first"
cmp "$work/first" "$work/second" || {
	cat "$work/second"
	echo "reproducible: the files differ" >&2
	exit 1
}
echo "reproducible: two builds give the same files"
