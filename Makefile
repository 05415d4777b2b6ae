# make            the library, and idmctl with its manual pages
# make demo       two lvmlockd hosts share a volume group (as root; installs what it needs)
# make check      all tests (as root; installs what they need)
# make lab        all scenarios on virtual machines (as root; installs what it needs)
# make lab SCENARIO=name   one of them; make lab-short: two, as in make check; make lab-shell: for
#                 experiments by hand
#                 DRIVES=nvme: with NVMe drives
# make lab-readme   README's commands on an empty Debian 13 host in the lab, with the packages that
#                 `make packages SUITES=trixie` has made
# make lab-lvm2   every script of lvm2's own tests in the lab, with local locks and with IDM:
#                 RELEASE=2.03.16-2 TESTS="a b*" SHARD=1/4 JOBS=2; continues after an interruption
# make mutants    ONLY=text: mutation testing of the lock engine; mutants-sample: some
# make shuttle    the library's threads under a million schedules
# make long-run   MINUTES=60: two hosts, 500 LVs, a fault every minute
# make take-overs HOURS=1000 SEED=0: simulated hours in which paths come and go and drives are slow;
#                 no healthy host may be removed
# make lint       format, clippy, the documentation's links, licences of dependencies
# make spell      spelling; make minimum-rust: the library and its tests with the oldest Rust;
#                 make architectures: the library compiles for other ones, and works with musl
# make install    DESTDIR= PREFIX= LIBDIR= …; STRIP=no: for packagers whose tools separate debug
#                 information; make uninstall
# make dist       the source archive, with all crates in it
# make packages   deb and rpm from it, offline, in clean roots; and tests of what is installed of
#                 them in others (as root; SUITES=)
# make reproducible   two builds give the same files
# make lvm2-releases   CLONE= TAGS=: lvmlockd of every release of lvm2

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
SBINDIR ?= $(PREFIX)/sbin
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
DOCDIR ?= $(DATADIR)/doc/lvmlockd-idm
DEBUGDIR ?= $(PREFIX)/lib/debug
UNITDIR ?= $(PREFIX)/lib/systemd/system
STRIP ?= yes
CARGO ?= cargo
export CARGO

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
LIBRARY = liblvmlockd_idm.so
SONAME = $(LIBRARY).0
# Where the files that are shipped are put together.
SHIPPED = build/shipped
# The command for administrators, where this tree has it.
IDMCTL := $(patsubst crates/%/Cargo.toml,%,$(wildcard crates/idmctl/Cargo.toml))
LVM2_RELEASES = 2.03.16-2 2.03.31-2
GUEST_TARGET = $(shell uname -m)-unknown-linux-gnu
# The whole workspace, with drives that tests can have.
WORKSPACE = --locked --workspace --features lvmlockd-idm/emulator,idmctl/emulator

.NOTPARALLEL:
.PHONY: all demo check install uninstall clean deps check-deps testbed lvm2 lint c-tests races \
	shuttle shuttle-short minimum-rust spell check-install diagrams mutants mutants-sample lab \
	lab-short lab-shell lab-readme lab-lvm2 lab-files dist reproducible packages lvm2-releases \
	architectures long-run take-overs

# In a folder of its own and without any other package, because cargo gives a dependency the
# features that all packages of one build want.
BUILD_SHIPPED = flags=$$(scripts/remap-paths.sh) && CARGO_ENCODED_RUSTFLAGS="$$flags" \
	$(CARGO) build --locked --release --target-dir

# Apart, because Cargo would give the library what only the program needs. In two folders, because
# Cargo would build both anew each time: both have a file of the library's name.
#
# What the compiler has made is said by its hash, for comparisons of builds.
all:
	$(BUILD_SHIPPED) target/shipped -p lvmlockd-idm
	scripts/separate-debug.sh target/shipped/release/$(LIBRARY) \
		$(SHIPPED)/$(LIBRARY).$(VERSION) $(SHIPPED)/$(LIBRARY).$(VERSION).debug
	ln -sf $(LIBRARY).$(VERSION) $(SHIPPED)/$(SONAME)
	ln -sf $(SONAME) $(SHIPPED)/$(LIBRARY)
ifdef IDMCTL
	$(BUILD_SHIPPED) target/shipped-idmctl -p idmctl
	scripts/separate-debug.sh target/shipped-idmctl/release/idmctl $(SHIPPED)/idmctl \
		$(SHIPPED)/idmctl.debug
	$(BUILD_SHIPPED) target/shipped-idmctl -p idmctl --example pages
	target/shipped-idmctl/release/examples/pages build/pages
	@sha256sum target/shipped-idmctl/release/idmctl
endif
	@sha256sum target/shipped/release/$(LIBRARY)

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
	$(CARGO) test --locked -p lvmlockd-idm --features emulator --test tidy

spell:
	codespell

architectures:
	scripts/check-architectures.sh

minimum-rust:
	scripts/minimum-rust.sh check --locked -p lvmlockd-idm -p idmctl -p idm-sg -p testbed \
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

# Seeds count from SEED; each is a day with either of two leases.
HOURS = 1000
SEED = 0
take-overs:
	IDM_HOURS=$(HOURS) IDM_SEED=$(SEED) $(CARGO) test --locked --release -p idm-fencing \
		--test simulation -- --ignored --nocapture healthy_hosts

# Breaks the engine in every small way that it knows, and checks that the tests notice. Takes hours,
# unless ONLY=text selects mutants by their name. Continues after an interruption.
mutants:
	$(CARGO) run --locked --release -p idm-mutants -- run $(if $(ONLY),--only '$(ONLY)')

# A sample of them, which changes with the commit.
mutants-sample:
	$(CARGO) run --locked --release -p idm-mutants -- run --sample 40 --seconds 100

# Tests of whole hosts wait for leases most of their time: more of them than there are processors.
check: check-deps lint spell minimum-rust architectures lvm2
	RUST_TEST_THREADS=6 $(CARGO) test $(WORKSPACE) --exclude idm-sim
	$(CARGO) test --locked -p idm-sim --features broken-rules
	$(MAKE) shuttle-short
	$(MAKE) c-tests
	$(MAKE) check-install
	$(MAKE) lab-short

# Machines run the very file that is installed; the one of the tests is only linked to. What runs in
# the machines is static, because the agent is there before there is a root file system.
lab-files: deps testbed all
	@for release in $(LVM2_RELEASES); do \
		lvm2/build-lvm2.sh $$release build/lib build/lvm2 || exit; \
	done
	$(CARGO) build --locked --release -p idm-target -p lab
	mkdir -p build/lab/lib build/lab/other build/lab/bin
	install $(SHIPPED)/$(LIBRARY).$(VERSION) build/lab/lib/$(SONAME)
	install build/lib/$(SONAME) build/lab/other/
	install target/release/idm-target target/release/lab $(SHIPPED)/idmctl build/lab/bin/
	RUSTFLAGS="-C target-feature=+crt-static" \
		$(CARGO) build --locked --release -p lab-agent -p lab-writer \
		--target $(GUEST_TARGET)
	install target/$(GUEST_TARGET)/release/lab-writer build/lab/bin/
	lab/prepare.sh build/lab target/$(GUEST_TARGET)/release/lab-agent
	@for release in $(LVM2_RELEASES); do \
		lab/lvm2-tests/prepare.sh build/lvm2/$$release/lvm2-$${release%-*} \
			build/lab/lvm2-testsuite/$$release || exit; \
	done

# DRIVES=nvme: with NVMe drives in place of SCSI disks.
LAB = build/lab/bin/lab $(if $(filter nvme,$(DRIVES)),--nvme)

lab: lab-files
	$(LAB) $(SCENARIO)

lab-short: lab-files
	$(LAB) --short

# With the packages that `make packages SUITES=trixie` has made.
lab-readme: lab-files
	lab/readme/prepare.sh build/packages/trixie build/lab/readme
	$(LAB) readme

lab-shell: lab-files
	$(LAB) --shell

RELEASE = $(LVM2_RELEASES)
lab-lvm2: lab-files
	@for release in $(RELEASE); do \
		build/lab/bin/lab --lvm2 $$release $(if $(JOBS),--jobs $(JOBS)) \
			$(if $(SHARD),--shard $(SHARD)) $(TESTS) || exit; \
	done

# What is installed names other files by where they are installed.
PLACES = sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' \
	-e 's|@INCLUDEDIR@|$(INCLUDEDIR)|g' -e 's|@DATADIR@|$(DATADIR)|g' \
	-e 's|@SBINDIR@|$(SBINDIR)|g' -e 's|@DOCDIR@|$(DOCDIR)|g' -e 's|@VERSION@|$(VERSION)|g'
# $(call place,FILE,DIRECTORY,MODE,NAME)
place = $(PLACES) $(1) >$(DESTDIR)$(2)/$(4) && chmod $(3) $(DESTDIR)$(2)/$(4)
PAGES = $(notdir $(wildcard man/*.[1-8]))
SECTIONS = $(sort $(subst .,,$(suffix $(PAGES))))
OWN_DATA = $(DATADIR)/lvmlockd-idm
BASH_COMPLETION = $(DATADIR)/bash-completion/completions/idmctl
ZSH_COMPLETION = $(DATADIR)/zsh/site-functions/_idmctl
FISH_COMPLETION = $(DATADIR)/fish/vendor_completions.d/idmctl.fish

# The drop-in for lvmlockd.service is not put into force: other hosts use sanlock or dlm.
install: all
	install -d $(addprefix $(DESTDIR),$(LIBDIR)/pkgconfig $(INCLUDEDIR) $(SBINDIR) \
		$(OWN_DATA) $(DOCDIR) $(addprefix $(MANDIR)/man,$(SECTIONS)))
ifeq ($(STRIP),no)
	install -m 755 target/shipped/release/$(LIBRARY) $(DESTDIR)$(LIBDIR)/$(LIBRARY).$(VERSION)
else
	install -m 755 $(SHIPPED)/$(LIBRARY).$(VERSION) $(DESTDIR)$(LIBDIR)/
	install -D -m 644 $(SHIPPED)/$(LIBRARY).$(VERSION).debug \
		$(DESTDIR)$(DEBUGDIR)/$$(scripts/build-id.sh $(SHIPPED)/$(LIBRARY).$(VERSION))
endif
	ln -sf $(LIBRARY).$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/$(LIBRARY)
	install -m 644 include/lvmlockd_idm.h $(DESTDIR)$(INCLUDEDIR)/
	install -m 644 lvm2/lvmlockd-idm.c dist/lvmlockd-idm.conf dist/idm-restart.conf \
		dist/idm-order.conf $(DESTDIR)$(OWN_DATA)/
	install -m 755 lvm2/build-lvmlockd $(DESTDIR)$(OWN_DATA)/
	install -D -m 644 dist/idm-activate@.service \
		$(DESTDIR)$(UNITDIR)/idm-activate@.service
	@$(call place,dist/lvmlockd-idm-kill-vg,$(SBINDIR),755,lvmlockd-idm-kill-vg)
	@$(call place,dist/lvmlockd_idm.pc.in,$(LIBDIR)/pkgconfig,644,lvmlockd_idm.pc)
	@$(foreach page,$(PAGES),$(call place,man/$(page),$(MANDIR)/man$(subst .,,$(suffix \
		$(page))),644,$(page)) &&) true
	install -m 644 COPYING.LIB $(DESTDIR)$(DOCDIR)/
	scripts/notices.sh lvmlockd-idm $(IDMCTL) >$(SHIPPED)/NOTICES
	install -m 644 $(SHIPPED)/NOTICES $(DESTDIR)$(DOCDIR)/
ifdef IDMCTL
ifeq ($(STRIP),no)
	install -m 755 target/shipped-idmctl/release/idmctl $(DESTDIR)$(SBINDIR)/
else
	install -m 755 $(SHIPPED)/idmctl $(DESTDIR)$(SBINDIR)/
	install -D -m 644 $(SHIPPED)/idmctl.debug \
		$(DESTDIR)$(DEBUGDIR)/$$(scripts/build-id.sh $(SHIPPED)/idmctl)
endif
	install -d $(DESTDIR)$(MANDIR)/man8
	install -m 644 build/pages/idmctl*.8 $(DESTDIR)$(MANDIR)/man8/
	install -D -m 644 build/pages/idmctl.bash $(DESTDIR)$(BASH_COMPLETION)
	install -D -m 644 build/pages/_idmctl $(DESTDIR)$(ZSH_COMPLETION)
	install -D -m 644 build/pages/idmctl.fish $(DESTDIR)$(FISH_COMPLETION)
endif

# Takes the files away that this version installs, and folders that are then empty.
uninstall:
	rm -f $(addprefix $(DESTDIR)$(LIBDIR)/,$(LIBRARY).$(VERSION) $(SONAME) $(LIBRARY) \
		pkgconfig/lvmlockd_idm.pc) $(DESTDIR)$(INCLUDEDIR)/lvmlockd_idm.h \
		$(DESTDIR)$(SBINDIR)/lvmlockd-idm-kill-vg \
		$(DESTDIR)$(UNITDIR)/idm-activate@.service \
		$(addprefix $(DESTDIR)$(OWN_DATA)/,lvmlockd-idm.c lvmlockd-idm.conf \
		idm-restart.conf idm-order.conf build-lvmlockd) \
		$(addprefix $(DESTDIR)$(DOCDIR)/,COPYING.LIB NOTICES) \
		$(foreach page,$(PAGES),$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix \
		$(page)))/$(page))
	[ ! -f $(SHIPPED)/$(LIBRARY).$(VERSION) ] || rm -f \
		$(DESTDIR)$(DEBUGDIR)/$$(scripts/build-id.sh $(SHIPPED)/$(LIBRARY).$(VERSION))
	[ ! -f $(SHIPPED)/idmctl ] || rm -f \
		$(DESTDIR)$(DEBUGDIR)/$$(scripts/build-id.sh $(SHIPPED)/idmctl)
	rm -f $(DESTDIR)$(SBINDIR)/idmctl $(DESTDIR)$(MANDIR)/man8/idmctl*.8 \
		$(addprefix $(DESTDIR),$(BASH_COMPLETION) $(ZSH_COMPLETION) $(FISH_COMPLETION))
	-rmdir $(DESTDIR)$(OWN_DATA) $(DESTDIR)$(DOCDIR) 2>/dev/null

check-install: all
	CC='$(CC)' scripts/check-install.sh

dist:
	scripts/dist.sh

reproducible:
	scripts/reproducible.sh

# docs/lvm2-releases.md, with CLONE=, a git clone of lvm2.
lvm2-releases: all
	scripts/lvm2-releases.sh $(SHIPPED) $(CLONE) $(TAGS)

# Debian's releases, in roots of their own.
SUITES = bookworm trixie
packages:
	scripts/packages.sh $(SUITES)

clean:
	$(CARGO) clean
	rm -rf build
