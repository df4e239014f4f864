# How do I build, try, test and install talkmeter? `make` lists the targets.
#
# PG_CONFIG=/path/to/pg_config chooses the server; DESTDIR stages an installation.

SHELL := /bin/bash
.SHELLFLAGS := -euc
.NOTPARALLEL:
.PHONY: help all setup needed-to-build needed-for-the-demo build report install uninstall release demo demo-stop test regress regress-accept test-servers bare-root bench \
	installcheck deb package dist clean

PG_CONFIG ?=
DESTDIR ?=
export PG_CONFIG
# cargo would take the job slots of `make -j` for its own and complain that it cannot reach them.
unexport MAKEFLAGS
# Where rustup puts cargo; a shell older than its installation does not know.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
# The scripts look for what was built in target/, wherever the user's cargo would put it.
export CARGO_TARGET_DIR := $(CURDIR)/target

# A library that is passed on does not tell where it was made.
unnamed = $(RUSTFLAGS) --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=cargo --remap-path-prefix=$(CURDIR)=talkmeter

VERSION := $(shell . scripts/cluster.sh && talkmeter_version)
# How the library is compiled: checks is compiled faster and runs slower.
PROFILE ?= release
SCRIPT := target/talkmeter--$(VERSION).sql
PACKAGES := target/packages

# Looked up only by the targets that need it: before `make setup` there may be none.
pg_config = $(or $(shell PG_CONFIG='$(PG_CONFIG)'; . scripts/cluster.sh && find_pg_config),$(error no usable server))
major = $(shell . scripts/cluster.sh && major_of '$(pg_config)')
# Those of several majors lie beside each other.
library = $(shell . scripts/cluster.sh && build_for '$(pg_config)')
libdir = $(DESTDIR)$(shell $(pg_config) --pkglibdir)
extdir = $(DESTDIR)$(shell $(pg_config) --sharedir)/extension

help: ## this list
	@echo "talkmeter $(VERSION): make TARGET [PG_CONFIG=/path/to/pg_config]"
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' Makefile | expand -t 18

setup: ## install what all targets need, for developers: build, demo and test install what they need themselves (may ask for sudo)
	@scripts/setup.sh test

needed-to-build:
	@scripts/setup.sh build

needed-for-the-demo:
	@scripts/setup.sh demo

build: needed-to-build ## compile the library, put the install script together
	export PGRX_PG_CONFIG_PATH=$(pg_config) major=$(major) RUSTFLAGS="$(unnamed)" CFLAGS="$(CFLAGS) -ffile-prefix-map=$(CURDIR)=talkmeter"; \
	cargo build --profile $(PROFILE) --locked -p talkmeter --no-default-features --features pg$$major --target-dir target/pg$$major && \
	install -m 755 target/pg$$major/$(PROFILE)/libtalkmeter.so $(library)
	@rm -f target/talkmeter--*.sql
	@LC_ALL=C; cat sql/[0-9][0-9]-*.sql > $(SCRIPT)
	@for script in sql/upgrades/talkmeter--*.sql; do [ ! -f $$script ] || \
		cat sql/upgrades/begin.sql $$script sql/upgrades/end.sql > target/$${script##*/}; done

report: needed-to-build ## target/talkmeter-report, which writes the page of a merchant (docs/seen.md)
	@cargo build --quiet --profile checks --locked -p talkmeter-report
	@install -m 755 target/checks/talkmeter-report target/talkmeter-report

install: ## copy into the server that PG_CONFIG names (after a build: sudo make install)
	@if [ ! -f $(library) ] || [ ! -f $(SCRIPT) ]; then $(MAKE) build; fi
	@if [ -n "$$(find src engine/src sql -newer $(SCRIPT) -type f -not -path 'sql/released/*' | head -n 1)" ]; then \
		echo "talkmeter: warning: installing a build that is older than the sources; 'make build' makes a new one." >&2; fi
	@if [ -z "$(DESTDIR)" ]; then for dir in $(libdir) $(extdir); do [ -w $$dir ] || \
		{ echo "talkmeter: cannot write to $$dir. Run: sudo make install$(if $(PG_CONFIG), PG_CONFIG=$(PG_CONFIG))" >&2; exit 1; }; done; fi
	@[ -n "$(DESTDIR)" ] || scripts/not-packaged.sh
	install -D -m 755 $(library) $(libdir)/talkmeter.so
	install -D -m 644 -t $(extdir) talkmeter.control target/talkmeter--*.sql

uninstall: ## remove what install copied, unless a server here has it in use (FORCE=1: all the same)
	@[ -n "$(DESTDIR)" ] || scripts/not-packaged.sh
	@[ -n "$(DESTDIR)" ] || [ "$(FORCE)" = 1 ] || scripts/in-use.sh
	rm -f $(libdir)/talkmeter.so $(extdir)/talkmeter.control $(extdir)/talkmeter--*.sql

release: setup build ## freeze the version that talkmeter.control names, for maintainers (docs/adding.md)
	@scripts/release.sh

demo: needed-for-the-demo build report ## a private server with sample data to try it on
	@scripts/demo.sh start

demo-stop: ## stop and remove the demo
	@scripts/demo.sh stop

test: setup build ## every test, on private servers (LONG=1: those with chance or size in them at length, several hours)
	@scripts/test.sh

regress: setup build ## only pg_regress and the isolation tests
	@scripts/with-cluster.sh -c max_prepared_transactions=20 -- scripts/regress.sh

regress-accept: setup build ## the same, and take the results as the expected ones
	@scripts/with-cluster.sh -c max_prepared_transactions=20 -- scripts/regress.sh --accept

test-servers: setup build ## only the tests of several servers whose books are together those of one, and of tenants that move
	@scripts/server-tests.sh --test server -- servers:: tenant_moves:: moves_under_load::

bare-root: setup ## README's commands as a newcomer runs them, on a Debian with nothing but git, make and Rust (needs root)
	@scripts/bare-root.sh

bench: setup build ## what metering costs, into docs/performance.md (PARTS="single copy", LONG=1: ten million rows too)
	@scripts/with-cluster.sh -c max_wal_size=8GB -c checkpoint_timeout=1h -c shared_buffers=512MB -c autovacuum=off -- bench/run.sh $(PARTS)

all: build

installcheck: ## ask the server that PGHOST and PGPORT name whether the talkmeter installed there answers as it should
	@scripts/installcheck.sh

deb: build ## a Debian package for the server's major, into target/packages
	@PACKAGES=$(PACKAGES) scripts/package.sh deb

package: build ## an archive for those without apt, into target/packages
	@PACKAGES=$(PACKAGES) scripts/package.sh tar

dist: ## the source as it is committed, for PGXN, into target/packages
	@mkdir -p $(PACKAGES)
	@git archive --format=zip --prefix=talkmeter-$(VERSION)/ -o $(PACKAGES)/talkmeter-$(VERSION).zip HEAD
	@echo $(PACKAGES)/talkmeter-$(VERSION).zip

clean: demo-stop ## stop the demo, remove everything built
	rm -rf target
