#!/bin/sh
# The library exports the functions of its header and nothing else, each with the version that
# debian/liblvmlockd-idm0.symbols lists, has its soname, and refers to lvmlockd's symbols weakly.
#
#   check-symbols.sh LIBRARY HEADER
set -u
library=$1 header=$2
passed=0 failed=0
check() {
	if [ "$2" = "$3" ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "$1: found"
		echo "$2"
		echo "instead of"
		echo "$3"
	fi
}
dynamic=$(readelf --dyn-syms --wide "$library")
exported=$(echo "$dynamic" |
	awk '$1 ~ /^[0-9]+:$/ && $5 != "LOCAL" && $7 != "UND" { sub(/@@/, "@", $8); print $8 }' |
	LC_ALL=C sort)
check "exported functions" \
	"$(echo "$exported" | sed -n 's/@.*//; /^lm_/p')" \
	"$(grep -o 'lm_[a-z_]*_idm(' "$header" | tr -d '(' | LC_ALL=C sort -u)"
# The symbol with the version's name, and all functions with it.
check "symbols with versions" \
	"$(echo "$exported" | sed 's/^\(liblvmlockd_idm\.so\.0\)$/\1@\1/')" \
	"$(sed -n 's/^ \([^ ]*\) .*/\1/p' "$(dirname "$0")/../debian/liblvmlockd-idm0.symbols" |
		LC_ALL=C sort)"
check "number of functions" "$(grep -c '^int lm_' "$header")" 13
for symbol in alloc_lockspace daemon_test gl_use_idm log_level lvmlockd_idm_layout; do
	check "reference to $symbol" \
		"$(echo "$dynamic" | awk -v name=$symbol '$8 == name { print $5, $7 }')" "WEAK UND"
done
check "soname" \
	"$(readelf --dynamic --wide "$library" | sed -n 's/.*soname: \[\(.*\)\]/\1/p')" \
	"liblvmlockd_idm.so.0"
check "libraries that the library needs" \
	"$(readelf --dynamic --wide "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
		grep -v -e '^libc\.' -e '^libgcc_s\.' -e '^ld-linux' -e '^libm\.')" \
	""
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
