# Clean roots of Debian releases, for scripts that need them: to be read by bash with ".", as root,
# in the project's directory. "fail" has to be there.

[ "$(id -u)" = 0 ] || fail "run this as root"
command -v mmdebstrap >/dev/null || {
	apt-get -qq update
	apt-get -qq install -y --no-install-recommends mmdebstrap debian-archive-keyring >/dev/null
}

# The archive that this machine's own package sources name, so that a local mirror is used.
mirror() {
	apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' 'Created-By: Packages' |
		awk '$2 == "main" && $1 ~ /debian\/?$/ { print $1; exit }'
}

# within ROOT NETWORK COMMAND: with or without a network, in namespaces that end with the command.
within() {
	local root=$1 network=$2
	shift 2
	local namespaces=(--mount --pid --fork)
	[ "$network" = online ] || namespaces+=(--net)
	unshare "${namespaces[@]}" sh -c '
		root=$1
		shift
		mount --make-rprivate /
		# As a mount point the root can be that of further namespaces.
		mount --bind "$root" "$root"
		mount -t proc proc "$root/proc"
		mount --rbind /dev "$root/dev"
		mount --rbind /sys "$root/sys"
		[ ! -f /etc/resolv.conf ] || cp /etc/resolv.conf "$root/etc/"
		exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
			LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive sh -euc "$*"' sh "$root" "$@"
}

# bootstrap SUITE TARGET OPTION ...: makes a root, as a directory or an archive, whose apt gets
# packages and their sources.
bootstrap() {
	local suite=$1 target=$2
	shift 2
	local sources=()
	for kind in deb deb-src; do
		sources+=("$kind $mirror $suite main" "$kind $mirror-security $suite-security main")
	done
	mmdebstrap --quiet --include=ca-certificates "$@" "$suite" "$target" "${sources[@]}"
}

mirror=$(mirror)
[ -n "$mirror" ] || fail "this machine's apt sources name no Debian archive"
mirror=${mirror%/}
