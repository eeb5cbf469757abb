# Makefile - two commands do everything on a fresh Debian 12: `make demo` and `make test` (as root, or with sudo).

SHELL := /bin/bash
# The distribution's own Python: python3-dev and python3-venv belong to it, and it is built with profiles, which makes it faster.
PYTHON ?= $(shell [ -x /usr/bin/python3 ] && echo /usr/bin/python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# What pymilter is built with, what relaywarden runs beside, and what its tests and benches run against.
PACKAGES_BUILD := gcc libmilter-dev python3-dev python3-venv
PACKAGES_RUN := postfix postfix-pcre rspamd sasl2-bin libsasl2-modules libsasl2-modules-db unbound swaks
PACKAGES_TEST := redis-server redis-tools redis-sentinel miltertest opendkim opendkim-tools libmail-dkim-perl systemd systemd-journal-remote
PACKAGES_BENCH := postfwd policyd-rate-limit

.PHONY: help venv packages-build packages packages-test packages-bench demo test check docs bench bench-policyd bench-milter bench-monitor evaluate fuzz campaign clean

help: ## Show this help.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# Installs what is missing of $(1), and nothing if nothing is.  policy-rc.d keeps Debian from starting the packages' own
# services: the tests and the demo start private ones.
define install
	@missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  echo "installing Debian packages:" $$missing; \
	  $(SUDO) sh -c 'set -e; policy=/usr/sbin/policy-rc.d; \
	    if [ ! -e $$policy ]; then printf "#!/bin/sh\nexit 101\n" > $$policy; chmod 755 $$policy; trap "rm -f $$policy" EXIT; fi; \
	    apt-get update -qq; \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$$@" >/dev/null' install $$missing; \
	fi
endef

venv: $(VENV)/.complete ## Make .venv with a working .venv/bin/relaywarden.

packages-build:
	$(call install,$(PACKAGES_BUILD))

packages: packages-build
	$(call install,$(PACKAGES_RUN))

packages-test: packages
	$(call install,$(PACKAGES_TEST))

packages-bench: packages-test
	$(call install,$(PACKAGES_BENCH))

$(VENV)/.complete: setup.cfg pyproject.toml | packages-build
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: packages venv ## Send real mail through a private Postfix, rspamd and relaywarden; KEEP=1 leaves it running.
	$(SUDO) $(BIN)/python contrib/demo/demo.py $(if $(KEEP),--keep)

check: venv ## Lint, types, docs against settings.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layout.py tests/test_docs.py

test: packages-test venv ## The whole suite, on real Postfix, rspamd, Redis and DNS.
	$(SUDO) $(BIN)/python -m pytest $(PYTEST)

docs: venv ## Write docs/settings.rst from the table of settings.
	$(BIN)/python -m relaywarden.config.describe > docs/settings.rst

bench: packages-bench venv ## Speed: policyd with Redis, the milter beside OpenDKIM.
	$(SUDO) $(BIN)/python bench/bench_policyd.py --json docs/bench-policyd-alone.json
	$(SUDO) $(BIN)/python bench/bench_milter.py --json docs/bench-milter.json

bench-policyd: packages-bench venv ## policyd beside postfwd2 and policyd-rate-limit; growth to a million tenants.
	$(SUDO) $(BIN)/python bench/bench_peers.py --million --json docs/bench-policyd.json

bench-milter: packages-bench venv ## The milter beside OpenDKIM, rspamd's own milter, and through a real Postfix; QUICK=1 for a minute.
	$(SUDO) $(BIN)/python bench/bench_milter.py $(if $(QUICK),--quick) --json docs/bench-milter.json

bench-monitor: packages-test venv ## The monitor, end to end into the ledger, on one core; FLAT=10000000 watches its memory.
	$(SUDO) $(BIN)/python bench/bench_monitor.py $(if $(FLAT),--flat $(FLAT),--json docs/bench-monitor.json)
	$(BIN)/python bench/bench_classify.py

# Public labelled data; where it lies: bench/README.rst.
DATA ?= ../shared/data

evaluate: venv ## Score replies, reports and streams against labelled data (DATA=folder), and patterns on simulated tenants.
	$(BIN)/python bench/evaluate_replies.py --data $(DATA)/replies
	$(BIN)/python bench/evaluate_reports.py $(DATA)/arf/resources/arf
	$(BIN)/python bench/evaluate_streams.py --data $(DATA)/templates
	$(BIN)/python bench/evaluate_patterns.py --json docs/evaluate-patterns.json

# Campaigns take long; their last result is in docs/campaigns.rst.
fuzz: packages-test venv ## 200,000 hostile inputs each for policyd, milter and reports, and long runs of the property tests.
	$(SUDO) env RELAYWARDEN_FUZZ=200000 $(BIN)/python -m pytest tests/policyd/test_fuzz.py tests/milter/test_fuzz.py tests/monitor/test_reports_hostile.py --timeout 3600
	$(SUDO) env HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest tests -k 'machine or property' --timeout 3600

campaign: packages-test venv ## 2,000 messages through a real Postfix under each wiring, on both stores; 1,000 signed ones verified.
	$(SUDO) env RELAYWARDEN_MESSAGES=2000 RELAYWARDEN_SIGNED=1000 $(BIN)/python -m pytest tests/postfix/test_wirings.py tests/postfix/test_signatures.py --timeout 3600

clean: ## Remove what was built.
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
