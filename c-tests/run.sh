#!/bin/sh
# Runs test programs one after the other, each under valgrind with its own emulated drives, and adds
# up their checks.
#
#   EMULATOR=… LIBDIR=… run.sh PROGRAM …
#
# Prints only the output of programs that fail.
set -u
: "${EMULATOR:?}" "${LIBDIR:?}"
export EMULATOR LD_LIBRARY_PATH="$LIBDIR"
work=$(mktemp -d)
emulator_pid=
finish() {
	[ -z "$emulator_pid" ] || kill "$emulator_pid" 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

. "$(dirname "$0")/settings.sh"

passed=0 failed=0
for program; do
	name=$(basename "$program")
	DRIVES=$work/$name
	export DRIVES
	mkdir "$DRIVES"
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
		;;
	esac
	export OTHER_HOST_CONF LVMLOCKD_IDM_CONF

	timeout 120 valgrind --quiet --error-exitcode=99 --leak-check=full \
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
	passed=$((passed + ${good:-0})) failed=$((failed + bad))
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
