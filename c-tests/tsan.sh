#!/bin/sh
# Runs test_threads with ThreadSanitizer in the library and in the test: `make races` in the folder
# above.
#
# helgrind and drd are of no use here: they know only pthread's mutexes, and the library's are
# atomics and futexes, so they would report every access to guarded data. ThreadSanitizer knows
# atomics. It does not see the parts of Rust's standard library that were compiled without it;
# src/sys/sync.rs reports these to it. The compiler's flag is unstable and enabled with
# RUSTC_BOOTSTRAP; this build is for this test only. gcc's runtime is used.
#
# EMULATOR=… tsan.sh
set -eu
: "${EMULATOR:?}"
cd "$(dirname "$0")"
out=$PWD/../build/tsan
triple=$(rustc -vV | sed -n 's/^host: //p')
work=$(mktemp -d)
emulator_pid=
finish() {
	[ -z "$emulator_pid" ] || kill "$emulator_pid" 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM
. ./settings.sh

RUSTC_BOOTSTRAP=1 \
	RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer --cfg idm_tsan" \
	cargo build --quiet --locked --release -p lvmlockd-idm --features emulator \
	--target "$triple" --target-dir ../target/tsan
mkdir -p "$out"
cp "../target/tsan/$triple/release/liblvmlockd_idm.so" "$out/liblvmlockd_idm.so.0"
ln -sf liblvmlockd_idm.so.0 "$out/liblvmlockd_idm.so"
compile() {
	name=$1
	shift
	gcc -std=gnu11 -g -O1 -Wall -Wextra -Werror -fsanitize=thread -I. -I../include -rdynamic \
		-DRELEASE=31 "$@" -o "$out/$name" test_threads.c core.c tsan.c \
		-L"$out" -llvmlockd_idm -pthread
}
compile test_threads
# The same with a thread that writes memory that the library reads: this must be reported.
compile test_threads-race -DRACE

run() {
	DRIVES=$work/$1
	LIBRARY=$(realpath "$out/liblvmlockd_idm.so.0")
	export EMULATOR LIBRARY DRIVES LVMLOCKD_IDM_CONF="$work/$1.conf" LD_LIBRARY_PATH="$out"
	mkdir "$DRIVES"
	settings "$work/$1"
	mkfifo "$work/$1.ready"
	"$EMULATOR" --dir "$DRIVES" --drive d0 --drive d1 --drive d2 >"$work/$1.ready" &
	emulator_pid=$!
	read -r _ <"$work/$1.ready"
	status=0
	# Without address randomisation, which gcc's runtime does not support on newer kernels.
	TSAN_OPTIONS="exitcode=66 suppressions=$PWD/tsan.supp" timeout 120 \
		setarch -R "$out/$1" >"$work/$1.out" 2>&1 || status=$?
	kill "$emulator_pid"
	wait "$emulator_pid" 2>/dev/null || :
	emulator_pid=
}

run test_threads-race
if [ "$status" != 66 ] || ! grep -q "data race.*" "$work/test_threads-race.out"; then
	cat "$work/test_threads-race.out"
	echo "ThreadSanitizer does not see a race that is there (status $status)"
	exit 1
fi
run test_threads
if [ "$status" != 0 ]; then
	cat "$work/test_threads.out"
	echo "test_threads with ThreadSanitizer: exit status $status"
	exit 1
fi
echo "no races; $(grep 'passed' "$work/test_threads.out")"
