# make            the library, and idmctl with its manual pages
# make demo       two lvmlockd hosts share a volume group (as root; installs what it needs)
# make check      all tests (as root; installs what they need)
# make lab        all scenarios on virtual machines (as root; installs what it needs)
# make lab SCENARIO=name   one of them; make lab-short: two, as in make check; make lab-shell: for
#                 experiments by hand
#                 DRIVES=nvme: with NVMe drives
# make mutants    ONLY=text: mutation testing of the lock engine; mutants-sample: some
# make shuttle    the library's threads under a million schedules
# make long-run   MINUTES=60: two hosts, 500 LVs, a fault every minute
# make lint       format, clippy, the documentation's links, licences of dependencies
# make spell      spelling; make minimum-rust: the library and its tests with the oldest Rust
# make install    DESTDIR= PREFIX= LIBDIR= SBINDIR= MANDIR= UNITDIR=

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
SBINDIR ?= $(PREFIX)/sbin
INCLUDEDIR ?= $(PREFIX)/include
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
UNITDIR ?= $(PREFIX)/lib/systemd/system
CARGO ?= cargo

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
LIBRARY = liblvmlockd_idm.so
SONAME = $(LIBRARY).0
LVM2_RELEASES = 2.03.16-2 2.03.31-2
# The release in the lab's machines, and that of the lvmlockd that adopts locks.
LAB_LVM2 = 2.03.16-2
LAB_ADOPT = 2.03.31-2
GUEST_TARGET = $(shell uname -m)-unknown-linux-gnu
# The whole workspace, with drives that tests can have.
WORKSPACE = --locked --workspace --features lvmlockd-idm/emulator,idmctl/emulator

.NOTPARALLEL:
.PHONY: all demo check install clean deps check-deps testbed lvm2 lint c-tests races shuttle \
	shuttle-short minimum-rust spell check-install diagrams mutants mutants-sample lab \
	lab-short lab-shell lab-files long-run

# Apart, because Cargo would give the library what only the program needs.
all:
	$(CARGO) build --locked --release -p lvmlockd-idm
	$(CARGO) build --locked --release -p idmctl
	$(CARGO) run --quiet --locked --release -p idmctl --example pages -- build/pages

deps:
	@scripts/install-build-deps.sh

check-deps:
	@scripts/install-build-deps.sh check

# The library and the drives that the demo and the tests use. A copy, because the next build for
# another purpose replaces the library that Cargo made.
testbed:
	$(CARGO) build --locked --release -p lvmlockd-idm -p idm-emulator -p idmctl -p testbed \
		--features lvmlockd-idm/emulator,idmctl/emulator
	mkdir -p build/lib build/bin
	install target/release/$(LIBRARY) build/lib/$(SONAME)
	ln -sf $(SONAME) build/lib/$(LIBRARY)
	install target/release/idm-emulator target/release/idmctl build/bin/

lvm2: testbed
	@for release in $(LVM2_RELEASES); do \
		lvm2/build-lvm2.sh $$release build/lib build/lvm2 || exit; \
	done

demo: deps testbed
	@lvm2/build-lvm2.sh $(lastword $(LVM2_RELEASES)) build/lib build/lvm2
	@target/release/demo

# The pictures in docs/locking.md. A test of idm-sim checks that they are current.
diagrams:
	$(CARGO) run --locked --release -p idm-sim -- diagrams docs/diagrams

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(WORKSPACE) --all-targets -- -D warnings
	$(CARGO) clippy --locked -p lvmlockd-idm --all-targets -- -D warnings
	$(CARGO) clippy --locked -p lvmlockd-idm --features shuttle --all-targets -- -D warnings
	$(CARGO) clippy --locked -p idm-sim --features broken-rules --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" \
		$(CARGO) doc $(WORKSPACE) --no-deps --document-private-items
	scripts/check-dependencies.sh

spell:
	codespell

minimum-rust:
	scripts/minimum-rust.sh check --locked -p lvmlockd-idm -p idmctl \
		--features lvmlockd-idm/emulator,idmctl/emulator --all-targets \
		--target-dir target/minimum-rust

# With ThreadSanitizer. It needs an unstable flag of the compiler, so it is not a part of check.
races: testbed
	$(MAKE) -C c-tests races

# The hand-overs between the library's threads under shuttle's schedules, and for each of them a
# mistake that must be found. The number is that of schedules per scenario.
SCHEDULES = 40000
SHUTTLE = $(CARGO) test --locked -p lvmlockd-idm --lib --features shuttle schedules::

shuttle:
	mkdir -p build
	IDM_SCHEDULES=$(SCHEDULES) $(SHUTTLE) -- --nocapture >build/shuttle.out 2>&1 || \
		{ cat build/shuttle.out; exit 1; }
	@grep -o '[A-Za-z]* is found in .*' build/shuttle.out
	@sed -n 's/.*schedules: \([0-9]*\) of .*/\1/p' build/shuttle.out | \
		awk '{ n += $$1 } END { print n " schedules of " NR " scenarios" }'

shuttle-short:
	$(SHUTTLE)

c-tests: testbed
	$(MAKE) -C c-tests check header-check

# Two hosts with 500 LVs, and a fault every minute.
long-run:
	$(CARGO) test --locked --release -p lvmlockd-idm --features emulator --test hosts -- \
		--ignored --nocapture long_run

# Breaks the engine in every small way that it knows, and checks that the tests notice. Takes hours,
# unless ONLY=text selects mutants by their name. Continues after an interruption.
mutants:
	$(CARGO) run --locked --release -p idm-mutants -- run $(if $(ONLY),--only '$(ONLY)')

# A sample of them, which changes with the commit.
mutants-sample:
	$(CARGO) run --locked --release -p idm-mutants -- run --sample 40 --seconds 100

check: check-deps lint spell minimum-rust lvm2
	$(CARGO) test $(WORKSPACE) --exclude idm-sim
	$(CARGO) test --locked -p idm-sim --features broken-rules
	$(MAKE) shuttle-short
	$(MAKE) c-tests
	$(MAKE) check-install
	$(MAKE) lab-short

# Machines run the library as it is shipped; the one of the tests is only linked to. What runs in
# the machines is static, because the agent is there before there is a root file system.
lab-files: deps testbed
	@for release in $(LAB_LVM2) $(LAB_ADOPT); do \
		lvm2/build-lvm2.sh $$release build/lib build/lvm2 || exit; \
	done
	$(CARGO) build --locked --release -p lvmlockd-idm -p idm-target -p lab
	mkdir -p build/lab/lib build/lab/bin
	install target/release/$(LIBRARY) build/lab/lib/$(SONAME)
	install target/release/idm-target target/release/lab build/lab/bin/
	RUSTFLAGS="-C target-feature=+crt-static" \
		$(CARGO) build --locked --release -p lab-agent -p lab-writer \
		--target $(GUEST_TARGET)
	install target/$(GUEST_TARGET)/release/lab-writer build/lab/bin/
	lab/prepare.sh build/lab target/$(GUEST_TARGET)/release/lab-agent
	lab/lvm2-tests/prepare.sh build/lvm2/$(LAB_LVM2)/lvm2-$(word 1,$(subst -, ,$(LAB_LVM2))) \
		build/lab/lvm2-testsuite

# DRIVES=nvme: with NVMe drives in place of SCSI disks.
LAB = build/lab/bin/lab $(if $(filter nvme,$(DRIVES)),--nvme)

lab: lab-files
	$(LAB) $(SCENARIO)

lab-short: lab-files
	$(LAB) --short

lab-shell: lab-files
	$(LAB) --shell

install: all
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR)
	install -d $(DESTDIR)$(DATADIR)/lvmlockd-idm
	install -m 644 target/release/$(LIBRARY) $(DESTDIR)$(LIBDIR)/$(LIBRARY).$(VERSION)
	ln -sf $(LIBRARY).$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/$(LIBRARY)
	install -m 644 include/lvmlockd_idm.h $(DESTDIR)$(INCLUDEDIR)/
	install -m 644 lvm2/lvmlockd-idm.c $(DESTDIR)$(DATADIR)/lvmlockd-idm/
	install -m 644 dist/lvmlockd-idm.conf $(DESTDIR)$(DATADIR)/lvmlockd-idm/
	install dist/kill-vg $(DESTDIR)$(DATADIR)/lvmlockd-idm/
	install -d $(DESTDIR)$(SBINDIR) $(DESTDIR)$(MANDIR)/man8
	install target/release/idmctl $(DESTDIR)$(SBINDIR)/
	install -m 644 build/pages/idmctl*.8 $(DESTDIR)$(MANDIR)/man8/
	install -d $(DESTDIR)$(DATADIR)/bash-completion/completions
	install -m 644 build/pages/idmctl.bash \
		$(DESTDIR)$(DATADIR)/bash-completion/completions/idmctl
	install -d $(DESTDIR)$(DATADIR)/zsh/site-functions
	install -m 644 build/pages/_idmctl $(DESTDIR)$(DATADIR)/zsh/site-functions/
	install -d $(DESTDIR)$(DATADIR)/fish/vendor_completions.d
	install -m 644 build/pages/idmctl.fish $(DESTDIR)$(DATADIR)/fish/vendor_completions.d/
	install -d $(DESTDIR)$(UNITDIR)/lvmlockd.service.d
	install -m 644 dist/idm-restart.conf $(DESTDIR)$(UNITDIR)/lvmlockd.service.d/
	install -m 644 dist/idm-activate@.service $(DESTDIR)$(UNITDIR)/
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' \
		-e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' -e 's|@DATADIR@|$(DATADIR)|' \
		-e 's|@VERSION@|$(VERSION)|' dist/lvmlockd_idm.pc.in \
		>$(DESTDIR)$(LIBDIR)/pkgconfig/lvmlockd_idm.pc

# A C program finds the installed library as pkg-config says, under its soname, and it has no
# emulated drives in it.
check-install:
	rm -rf build/install
	$(MAKE) install DESTDIR= PREFIX=$(CURDIR)/build/install
	echo '#include <lvmlockd_idm.h>' >build/install/t.c
	echo 'int main(void) { return lm_data_size_idm() < 0; }' >>build/install/t.c
	PKG_CONFIG_PATH=build/install/lib/pkgconfig; export PKG_CONFIG_PATH; \
	$(CC) -o build/install/t build/install/t.c $$(pkg-config --cflags --libs lvmlockd_idm) && \
	test -f $$(pkg-config --variable=lvm2_source lvmlockd_idm)
	test -x build/install/share/lvmlockd-idm/kill-vg
	test -f build/install/share/lvmlockd-idm/lvmlockd-idm.conf
	build/install/sbin/idmctl --version
	! build/install/sbin/idmctl --help | grep -e --emulated
	test -f build/install/share/man/man8/idmctl-status.8
	test -f build/install/share/bash-completion/completions/idmctl
	test -f build/install/lib/systemd/system/lvmlockd.service.d/idm-restart.conf
	test -f build/install/lib/systemd/system/idm-activate@.service
	LD_LIBRARY_PATH=build/install/lib ldd build/install/t | \
		grep -q '$(SONAME) => build/install/lib'
	LD_LIBRARY_PATH=build/install/lib build/install/t
	@echo "check-install: ok"

clean:
	$(CARGO) clean
	rm -rf build
