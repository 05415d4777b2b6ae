#!/bin/sh
# What "make install" installs: a C program finds the library as pkg-config says, under its soname
# and without emulated drives; the library has its symbols, no path of the builder's, and is
# hardened; what installed files name is installed; "make uninstall" leaves nothing.
set -eu
export LC_ALL=C
cd "$(dirname "$0")/.."
root=$PWD/build/install
cc=${CC:-cc}
here=$PWD

fail() {
	echo "check-install: $*" >&2
	exit 1
}

# One version everywhere.
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
grep -q "^Version: *$version\$" rpm/lvmlockd-idm.spec || fail "rpm has another version"
sed 1q debian/changelog | grep -q "^lvmlockd-idm ($version-" || fail "debian has another version"

rm -rf "$root"
make --no-print-directory install DESTDIR="$root" PREFIX=/usr
library=$root/usr/lib/liblvmlockd_idm.so.0
[ -f "$library" ] || fail "there is no $library"

c-tests/check-symbols.sh "$library" include/lvmlockd_idm.h
segments=$(readelf --dynamic --segments --wide "$library")
for property in GNU_RELRO BIND_NOW 'GNU_STACK .*RW '; do
	echo "$segments" | grep -q "$property" || fail "the library has no $property"
done
! echo "$segments" | grep -q -e TEXTREL -e RPATH -e RUNPATH ||
	fail "the library has text relocations or a search path"
debug=$root/usr/lib/debug/$(scripts/build-id.sh "$library")
[ -f "$debug" ] || fail "there is no $debug"
! readelf --sections --wide "$library" | grep -q -e debug_info -e symtab ||
	fail "the library is not stripped"
readelf --sections --wide "$debug" | grep -q debug_info || fail "$debug has no debug information"
for place in "$here" "${CARGO_HOME:-$HOME/.cargo}" "$HOME"; do
	objcopy --decompress-debug-sections "$debug" "$root/debug"
	! grep -q -a -F "$place/" "$library" "$root/debug" || fail "the library names $place"
	rm "$root/debug"
done

export PKG_CONFIG_PATH="$root/usr/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$root"
printf '%s\n' '#include <lvmlockd_idm.h>' 'int main(void) { return lm_data_size_idm() < 0; }' \
	>"$root/t.c"
# shellcheck disable=SC2046  # lists of words
$cc -o "$root/t" "$root/t.c" $(pkg-config --cflags --libs lvmlockd_idm)
lvm2_source=$(pkg-config --variable=lvm2_source lvmlockd_idm)
[ -f "$root${lvm2_source#"$root"}" ] || fail "there is no $lvm2_source"
LD_LIBRARY_PATH=$root/usr/lib ldd "$root/t" | grep -q "liblvmlockd_idm.so.0 => $root" ||
	fail "the program does not find the library"
LD_LIBRARY_PATH=$root/usr/lib "$root/t"
readelf --dyn-syms --wide "$root/t" | grep -q 'lm_data_size_idm@liblvmlockd_idm\.so\.0' ||
	fail "the program asks for no version of the functions"
rm "$root/t" "$root/t.c"

# No installed text names a file of the source tree, or one of ours that is not installed.
texts=$(find "$root" -type f -exec grep -l -I '' {} +)
for text in $texts; do
	case $text in
	*/COPYING.LIB | */NOTICES) continue ;;
	esac
	if grep -n -E '(^|[^a-z/.-])(docs|src|dist|lab|crates|tests|scripts|man)/[a-zA-Z]' \
		"$text"; then
		fail "$text names a file that is not installed"
	fi
	for named in $(grep -o -E '/usr/[a-z/]*/(lib)?lvmlockd[-_]idm[a-zA-Z0-9_./-]*' "$text" |
		sed 's/[.]*$//' | sort -u); do
		[ -e "$root$named" ] || fail "$text names $named, which is not installed"
	done
	if grep -n '@[A-Z]*@' "$text"; then
		fail "$text has a place that was not filled in"
	fi
done
# And neither do the pages that tell administrators what to write.
for named in $(grep -o -h -E '/usr/[a-z/]*/(lib)?lvmlockd[-_]idm[a-zA-Z0-9_./-]*' README.md \
	docs/*.md | sed 's/[.]*$//' | sort -u); do
	[ -e "$root$named" ] || fail "a page names $named, which is not installed"
done

# Manual pages are without faults, and refer to each other's installed selves.
for page in "$root"/usr/share/man/man?/*; do
	warnings=$(man --warnings -l "$page" 2>&1 >/dev/null)
	[ -z "$warnings" ] || fail "$page: $warnings"
	for named in $(sed -n 's/^\.Xr \([a-z_-]*idm[a-z.-]*\) \([1-8]\).*/\1.\2/p' "$page"); do
		[ -f "$root/usr/share/man/man${named##*.}/$named" ] ||
			fail "$page refers to $named, which is not installed"
	done
done

# The drop-ins are understood, and with them units of lvm2's kind are started and stopped in an
# order without a circle. (That their programs are not on this machine is no fault.)
units=$root/units
for unit in lvmlockd lvmlocks; do
	mkdir -p "$units/$unit.service.d"
done
cp "$root/usr/share/lvmlockd-idm/idm-restart.conf" "$units/lvmlockd.service.d/"
cp "$root/usr/share/lvmlockd-idm/idm-order.conf" "$units/lvmlocks.service.d/"
printf '%s\n' '[Service]' 'Type=notify' 'ExecStart=/bin/true' >"$units/lvmlockd.service"
printf '%s\n' '[Unit]' 'After=lvmlockd.service' '[Service]' 'Type=oneshot' \
	'RemainAfterExit=yes' 'ExecStart=/bin/true' 'ExecStop=/bin/true' \
	>"$units/lvmlocks.service"
printf '%s\n' '[Unit]' 'Requires=lvmlockd.service lvmlocks.service remote-fs.target' \
	'After=remote-fs.target' >"$units/default.target"
SYSTEMD_UNIT_PATH="$units:" systemd-analyze verify --man=no "$units/default.target" \
	2>"$root/verify" || :
! grep -e cycle -e 'idm-[a-z]*.conf' "$root/verify" || fail "systemd does not take the drop-ins"
rm -r "$units" "$root/verify"

make --no-print-directory uninstall DESTDIR="$root" PREFIX=/usr
left=$(find "$root" ! -type d)
[ -z "$left" ] || fail "make uninstall leaves $left"
echo "check-install: ok"
