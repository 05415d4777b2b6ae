#!/bin/sh
# Fails if a dependency does not come from crates.io, or if its licence is not compatible.
#
# lvmlockd is under GPL-2.0-only, so crates that are linked into the library must offer a licence
# that is compatible with it: not Apache-2.0 alone. Crates that are used only for tests and tools
# may have any of the permissive licences.
set -eu
cd "$(dirname "$0")/.."

linked="MIT BSD-2-Clause BSD-3-Clause ISC Zlib Unlicense Unicode-3.0 LGPL-2.1-or-later"
others="$linked Apache-2.0 MPL-2.0 LLVM-exception"

foreign=$(sed -n 's/^source = "\(.*\)"/\1/p' Cargo.lock | sort -u |
	grep -vx 'registry+https://github.com/rust-lang/crates.io-index' || true)
if [ -n "$foreign" ]; then
	echo "Dependencies that are not from crates.io: $foreign" >&2
	exit 1
fi

# Reads lines "PACKAGE|SPDX EXPRESSION" and prints those whose expression is not satisfied by the
# licences in `list` alone. "AND" binds tighter than "OR"; "/" is an old form of "OR".
unfit() {
	awk -F'|' -v list="$1" '
		BEGIN {
			n = split(list, words, " ")
			for (i = 1; i <= n; i++) fits[words[i]] = 1
		}
		function term(text) {
			sub(/ *\(\*\)$/, "", text)
			return text
		}
		# Each returns whether its part of the expression is satisfied; `at` is the next
		# word.
		function either(    holds) {
			holds = both()
			while (word[at] == "OR") {
				at++
				holds = both() || holds
			}
			return holds
		}
		function both(    holds) {
			holds = one()
			while (word[at] == "AND" || word[at] == "WITH") {
				at++
				holds = one() && holds
			}
			return holds
		}
		function one(    holds) {
			if (word[at] == "(") {
				at++
				holds = either()
				at++
				return holds
			}
			return word[at++] in fits
		}
		{
			text = term($2)
			gsub(/\//, " OR ", text)
			gsub(/\(/, " ( ", text)
			gsub(/\)/, " ) ", text)
			delete word
			count = split(text, word, " ")
			at = 1
			if (!either() || at <= count) print "  " $1 ": " term($2)
		}' | sort -u
}

# Dependencies for builds on this machine; `-e` selects their kind.
packages() {
	cargo tree --locked --prefix none --format '{p}|{l}' "$@"
}

failed=
check() {
	what=$1 list=$2
	shift 2
	# Not in a pipe, which would hide a failure of cargo.
	found=$(packages "$@")
	bad=$(printf '%s\n' "$found" | grep . | unfit "$list")
	if [ -n "$bad" ]; then
		printf 'Licences that do not fit %s:\n%s\n' "$what" "$bad" >&2
		failed=yes
	fi
}

check "a library that lvmlockd links" "$linked" -p lvmlockd-idm -e normal
check "tests and tools" "$others" --workspace --features lvmlockd-idm/emulator -e normal,build,dev
[ -z "$failed" ]
