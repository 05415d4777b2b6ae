# To be sourced by tests: this Debian release's lvm2 in the folder $work, where tests that run one
# after the other find what was made before.

# The source, which is then in $tree.
get_lvm2() {
	tree=$(find "$work" -maxdepth 1 -type d -name 'lvm2-*')
	[ -z "$tree" ] || return 0
	# The archive that packages come from.
	sources=$work/sources.list
	apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(SIGNED_BY)' \
		'Created-By: Packages' | awk '$3 == "main" {
			by = $4 ~ /^\// ? " [signed-by=" $4 "]" : ""
			print "deb-src" by " " $1 " " $2 " main"
		}' >"$sources"
	mkdir -p "$work/lists/partial"
	set -- -q -o Dir::Etc::sourcelist="$sources" -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists="$work/lists" -o APT::Sandbox::User=root
	(cd "$work" && apt-get "$@" update && apt-get "$@" source lvm2)
	tree=$(find "$work" -maxdepth 1 -type d -name 'lvm2-*')
}

# build_lvmlockd shim: with the layout table; plain: without. It is then $work/VARIANT/lvmlockd.
build_lvmlockd() {
	[ ! -f "$work/$1/lvmlockd" ] || return 0
	set -- "$1" "$tree"
	[ "$1" = shim ] || set -- "$1" --no-table "$tree"
	variant=$1
	shift
	/usr/share/lvmlockd-idm/build-lvmlockd "$@"
	mkdir -p "$work/$variant"
	cp "$tree/daemons/lvmlockd/lvmlockd" "$work/$variant/"
}
