#!/bin/sh
# Runs test programs one after the other, each under valgrind with its own emulated drives, and adds
# up their checks.
#
#   EMULATOR=… LIBRARY=… [LIBDIR=…] [SG=…] run.sh PROGRAM …
#
# LIBRARY is the file that each program must have loaded; with LIBDIR it is looked for there, else
# where the system has its libraries. With SG, the library of crates/idm-sg, the drives are SCSI
# disks, for a library that knows no emulated ones.
#
# Prints only the output of programs that fail, and which library was loaded.
set -u
: "${EMULATOR:?}" "${LIBRARY:?}"
export EMULATOR LIBRARY
[ -z "${LIBDIR:-}" ] || export LD_LIBRARY_PATH="$LIBDIR"
here=$(dirname "$0")
work=$(mktemp -d)
emulator_pid=
finish() {
	[ -z "$emulator_pid" ] || kill "$emulator_pid" 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

. "$here/settings.sh"

passed=0 failed=0
for program; do
	name=$(basename "$program")
	DRIVES=$work/$name
	export DRIVES
	mkdir "$DRIVES"
	disks=
	settings "$DRIVES/host"
	settings "$DRIVES/other"
	OTHER_HOST_CONF=$DRIVES/other.conf
	LVMLOCKD_IDM_CONF=$DRIVES/host.conf
	case $name in
	test_entry*)
		# No drive is configured.
		echo "state_dir = \"$DRIVES/host.state\"" >"$LVMLOCKD_IDM_CONF"
		;;
	*)
		"$EMULATOR" --dir "$DRIVES" --drive d0 --drive d1 --drive d2 >"$DRIVES/ready" &
		emulator_pid=$!
		tries=0
		until [ -s "$DRIVES/ready" ] || [ $tries = 100 ]; do
			sleep 0.05
			tries=$((tries + 1))
		done
		[ -z "${SG:-}" ] || disks=$here/disks.sh
		;;
	esac
	export OTHER_HOST_CONF LVMLOCKD_IDM_CONF

	# shellcheck disable=SC2086  # a program or nothing
	timeout 120 $disks valgrind --quiet --error-exitcode=99 --leak-check=full \
		--errors-for-leak-kinds=definite,indirect --show-leak-kinds=definite,indirect \
		--fair-sched=yes "$program" >"$DRIVES/out" 2>"$DRIVES/err" </dev/null
	status=$?
	if [ -n "$emulator_pid" ]; then
		kill "$emulator_pid"
		wait "$emulator_pid" 2>/dev/null
		emulator_pid=
	fi
	counts=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$DRIVES/out")
	good=${counts% *} bad=${counts#* }
	if [ -z "$counts" ] || [ "$status" -ne 0 ]; then
		echo "$name: exit status $status"
		cat "$DRIVES/out" "$DRIVES/err"
		[ "${bad:-0}" -gt 0 ] || bad=1
	fi
	sed -n 's/^loaded: //p' "$DRIVES/out" >>"$work/loaded"
	passed=$((passed + ${good:-0})) failed=$((failed + bad))
done
sort -u "$work/loaded" | sed 's/^/library: /'
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
