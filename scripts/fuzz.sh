#!/bin/sh
# Searches for inputs that break a parser, with libFuzzer.
#
#   scripts/fuzz.sh TARGET [SECONDS]     TARGET: a folder of fuzz/corpus; SECONDS: 60
#   scripts/fuzz.sh all [SECONDS]        every target for so long
#
# The stable compiler is enough: its LLVM flags count coverage. No sanitizer is built in, but
# overflow checks and debug assertions are. Inputs that fail go into fuzz/artifacts; a new input
# that is worth keeping goes into fuzz/corpus.
set -eu
cd "$(dirname "$0")/.."
target=${1:?usage: scripts/fuzz.sh TARGET|all [SECONDS]}
seconds=${2:-60}
triple=$(rustc -vV | sed -n 's/^host: //p')
# --target limits the flags to our crates and their dependencies, without build scripts.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
	-Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks" \
	cargo build --quiet --locked --release -p idm-fuzz --features libfuzzer \
	--target "$triple" --target-dir target/fuzz
[ "$target" != all ] || target=$(ls fuzz/corpus)
for one in $target; do
	echo "== $one"
	found=target/fuzz/corpus/$one
	mkdir -p "$found" fuzz/artifacts
	FUZZ_TARGET=$one "target/fuzz/$triple/release/fuzz" -max_total_time="$seconds" \
		-max_len=8192 -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 -verbosity=0 \
		-artifact_prefix="fuzz/artifacts/$one-" "$found" "fuzz/corpus/$one"
done
