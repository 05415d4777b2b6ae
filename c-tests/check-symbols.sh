#!/bin/sh
# The library exports the functions of its header and nothing else, has its soname, and refers to
# lvmlockd's symbols weakly.
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
check "exported names" \
	"$(echo "$dynamic" |
		awk '$1 ~ /^[0-9]+:$/ && $5 != "LOCAL" && $7 != "UND" { print $8 }' | sort)" \
	"$(grep -o 'lm_[a-z_]*_idm(' "$header" | tr -d '(' | sort -u)"
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
