#!/bin/sh
# Prints where debuggers look for a file's debug information, below /usr/lib/debug.
set -eu
readelf --notes "$1" | sed -n 's|^ *Build ID: \(..\)\(.*\)|.build-id/\1/\2.debug|p' | grep .
