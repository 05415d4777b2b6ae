#!/bin/sh
# Makes the file that is shipped from one that cargo has built: without debug information, which
# goes to a file of its own. Debuggers find it by the build id.
#
#   separate-debug.sh FILE STRIPPED DEBUG
set -eu
file=$1 stripped=$2 debug=$3
mkdir -p "$(dirname "$stripped")" "$(dirname "$debug")"
objcopy --only-keep-debug --compress-debug-sections "$file" "$debug"
chmod 644 "$debug"
objcopy --strip-unneeded --remove-section=.comment --add-gnu-debuglink="$debug" "$file" \
	"$stripped"
