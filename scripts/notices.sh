#!/bin/sh
# Prints the licences of all crates that are linked into what is shipped, from the copies that cargo
# has of them: no network is needed.
#
#   notices.sh PACKAGE ...
set -eu
export LC_ALL=C
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}

# NAME VERSION|LICENCE of each, without what only runs in the compiler.
linked() {
	for package; do
		"$cargo" tree --locked --prefix none --edges normal,no-proc-macro \
			--format '{p}|{l}' -p "$package"
	done | sed -n 's/ (\*)//; s/^\([^ ]*\) v\([^ |]*\)|/\1 \2|/p' | sort -u
}

# Where cargo keeps a crate: in a source archive, or on a machine that has used the registry.
source_of() {
	for place in "vendor/$1-$2" "${CARGO_HOME:-$HOME/.cargo}/registry/src"/*/"$1-$2"; do
		[ -d "$place" ] || continue
		echo "$place"
		return
	done
	echo "notices.sh: cargo has no copy of $1 $2" >&2
	exit 1
}

# Of a crate that offers a choice, the MIT licence: every one of them that lvmlockd may link does.
licence_files() {
	for pattern in 'LICENSE-MIT*' 'LICEN[SC]E*' 'COPYING*'; do
		# shellcheck disable=SC2086  # a pattern
		set -- "$source"/$pattern
		[ -f "$1" ] || continue
		printf '%s\n' "$@"
		return
	done
	echo "notices.sh: $name has no text of its licence" >&2
	exit 1
}

cat <<'END'
liblvmlockd_idm is under the GNU Lesser General Public License, version 2.1 or later: see
COPYING.LIB. These parts are linked into it.

The Rust standard library is under the MIT License or the Apache License, Version 2.0.
Copyright (c) The Rust Project Contributors.

END
linked "$@" | while IFS='|' read -r name licence; do
	# shellcheck disable=SC2086  # name and version
	source=$(source_of $name)
	files=$(licence_files)
	printf '%s\n%s: %s\n\n' "----------------------------------------" "$name" "$licence"
	echo "$files" | while read -r file; do
		tr -d '\r' <"$file"
		echo
	done
done
