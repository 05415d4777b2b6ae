#!/bin/bash
# Builds the source archive's Debian packages and rpms in a clean root of each Debian release that
# is named, without a network, and looks at them with lintian and rpmlint. Then installs the Debian
# packages in another clean root, builds and starts a lvmlockd of that release's lvm2 with nothing
# but them, runs the integration tests with the installed library, and compares the library's ABI
# with what its soname promises. As root.
#
#   packages.sh SUITE ...
#
# The results are in build/packages/SUITE; what is there is made anew. ARCHIVE=FILE is taken as it
# is; else the archive is made of what is committed.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
cd "$(dirname "$0")/.."
top=$PWD/build/packages
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=lvmlockd-idm-$version

fail() {
	echo "packages: $*" >&2
	exit 1
}

. scripts/clean-root.sh
archive=${ARCHIVE:-$PWD/build/dist/$name.tar.xz}
[ -n "${ARCHIVE:-}" ] || scripts/dist.sh >/dev/null

# Makes an archive of a clean root once; roots are unpacked from it.
clean_root() {
	[ -f "$top/$suite.tar" ] || {
		echo "packages: making a clean root of Debian $suite"
		bootstrap "$suite" "$top/new.tar" --variant=apt
		mv "$top/new.tar" "$top/$suite.tar"
	}
	rm -rf "$1"
	mkdir -p "$1"
	tar -x -C "$1" -f "$top/$suite.tar"
}

build() {
	local root=$out/build-root
	clean_root "$root"
	mkdir -p "$root/build"
	cp "$archive" "$root/build/lvmlockd-idm_$version.orig.tar.xz"
	cp "$archive" "$root/build/$name.tar.xz"
	within "$root" online "
		cd /build
		apt-get -qq update
		apt-get -qq install -y --no-install-recommends build-essential elfutils lintian \
			rpm rpmlint xz-utils >/dev/null
		tar -xf $name.tar.xz
		apt-get -qq build-dep -y --no-install-recommends ./$name >/dev/null"
	echo "packages: building Debian packages in $suite, without a network"
	within "$root" offline "
		cd /build/$name
		cargo --version
		dpkg-buildpackage -us -uc" >"$out/deb.log" 2>&1 || fail "see $out/deb.log"
	echo "packages: building rpms in $suite, without a network"
	# The build dependencies are there, but not in rpm's own list. The tests are those that the
	# Debian build has just run.
	within "$root" offline "
		rpmbuild -ta --nodeps --without check --define '_topdir /build/rpm' \
			/build/$name.tar.xz" \
		>"$out/rpm.log" 2>&1 || fail "see $out/rpm.log"
	compare_builds
	# For the tests of what is installed; built here, so that no library is built there.
	within "$root" offline "
		cd /build/$name
		debian/tests/build-tests . target /build/tests" \
		>"$out/tests.log" 2>&1 || fail "see $out/tests.log"
	cp -r "$root/build/tests" "$out/"
	cp "$root"/build/*.deb "$root"/build/*.dsc "$root"/build/*.changes "$out/"
	find "$root/build/rpm" -name '*.rpm' -exec cp -t "$out" {} +
	within "$root" offline "
		cd /build
		lintian --version
		lintian --info --display-info --allow-root --fail-on error,warning \
			*.changes" >"$out/lintian.log" 2>&1 || fail "lintian: see $out/lintian.log"
	within "$root" offline "
		cd /build
		rpmlint --version
		rpmlint --config $name/rpm/rpmlintrc.toml rpm/RPMS/*/*.rpm rpm/SRPMS/*.rpm" \
		>"$out/rpmlint.log" 2>&1 || fail "rpmlint: see $out/rpmlint.log"
	echo "packages: lintian: $(grep -c '^[EW]:' "$out/lintian.log") errors and warnings"
	echo "packages: rpmlint: $(tail -n 1 "$out/rpmlint.log")"
	rm -rf "$root"
}

# Both builds, in two folders, have made the same files, debug information included.
compare_builds() {
	local log
	for log in deb rpm; do
		grep -o '^[0-9a-f]\{64\}  target/shipped.*' "$out/$log.log" | sort -u \
			>"$out/$log.hashes" || fail "$out/$log.log has no hashes"
	done
	cmp "$out/deb.hashes" "$out/rpm.hashes" ||
		fail "two builds of the same source differ: see $out/deb.hashes and rpm.hashes"
	echo "packages: two builds in two folders have made the same files, before stripping:"
	cat "$out/deb.hashes"
}

# What is installed is all that there is of this project in that root.
try() {
	local root=$out/test-root
	clean_root "$root"
	mkdir -p "$root/packages"
	cp "$out"/*.deb "$root/packages/"
	mkdir -p "$root/tests"
	tar -xf "$archive" -C "$root/tests" --strip-components=1 \
		"$name/debian/tests" "$name/c-tests"
	mv "$out/tests" "$root/tests/built"
	within "$root" online "
		apt-get -qq update
		apt-get -qq install -y --no-install-recommends abigail-tools build-essential \
			libaio-dev libblkid-dev libsystemd-dev libudev-dev man-db mount pkg-config \
			rpm strace util-linux valgrind /packages/*.deb >/dev/null
		apt-get -qq install -y --no-install-recommends systemd-dev >/dev/null ||
			apt-get -qq install -y --no-install-recommends systemd >/dev/null
		mkdir /work
		AUTOPKGTEST_TMP=/work /tests/debian/tests/lvmlockd" >"$out/test.log" 2>&1 ||
		fail "see $out/test.log"
	echo "packages: a lvmlockd of $suite works with the installed packages"
	within "$root" offline "
		AUTOPKGTEST_TMP=/work TESTS=/tests/built /tests/debian/tests/installed" \
		>"$out/installed.log" 2>&1 || fail "see $out/installed.log"
	echo "packages: $(sed -n 's/^library: //p' "$out/installed.log") passes its tests:" \
		"$(sed -n 's/^test result: ok. \([0-9]* passed\).*/real lvmlockds: \1/p
		s/^\([0-9]* passed\), 0 failed$/checks in C: \1,/p' "$out/installed.log")"
	within "$root" offline /tests/debian/tests/abi >"$out/abi.log" 2>&1 ||
		fail "abidiff: see $out/abi.log"
	echo "packages: $(head -n 1 "$out/abi.log") finds no difference of the library's ABI"
	compare_rpms
	rm -rf "$root"
}

# The rpms have the same files, but for where distributions keep libraries and licences.
compare_rpms() {
	local list='s|^\./||; s|/lib/[a-z0-9_]*-linux-gnu/|/lib/|; s|/lib64/|/lib/|; s|\.gz$||'
	# Some have the version in the name of a folder with documentation.
	list="$list; s|share/doc/\([a-z-]*\)-$version/|share/doc/\1/|"
	# Not compared; a folder may be a link to that of another package.
	local papers='changelog\(.Debian\)*\|CHANGELOG.md\|copyright\|NOTICES'
	papers="share/doc/[^/]*\(/\($papers\)\)*\$"
	for package in "$out"/*.deb; do
		dpkg-deb --fsys-tarfile "$package" | tar -t
	done | sed "$list" | grep -v -e '^$' -e '/$' -e "$papers" -e '\.build-id' -e share/lintian |
		sort -u >"$out/deb.files"
	for package in "$out"/*.rpm; do
		case $package in *.src.rpm | *-debug*.rpm) continue ;; esac
		files_of_rpm "$package"
	done | sed "$list" | grep -v -e share/licenses -e "$papers" -e '\.build-id' | sort -u \
		>"$out/rpm.files"
	cmp "$out/deb.files" "$out/rpm.files" || {
		diff "$out/deb.files" "$out/rpm.files" >&2 || :
		fail "the rpms and the Debian packages have other files"
	}
	echo "packages: the rpms have the same files as the Debian packages"
}

# Names of files, without folders.
files_of_rpm() {
	cp "$1" "$out/test-root/packages/a.rpm"
	within "$out/test-root" offline "rpm -qp --qf '[%{FILEMODES:perms} %{FILENAMES}\n]' \
		/packages/a.rpm" 2>/dev/null | sed -n 's|^[^d][^ ]* /||p'
}

for suite; do
	out=$top/$suite
	rm -rf "$out"
	mkdir -p "$out"
	build
	try
	(cd "$out" && sha256sum ./*.deb ./*.rpm)
	# What they are made of, for the lab.
	sha256sum <"$archive" >"$out/archive"
done
