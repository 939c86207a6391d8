# EMhub: two commands on a fresh machine, `make run` and `make test`. Needs make and Python 3.11 or newer.
#
# Each step of the set-up leaves a stamp file, and is done again only when what it was made from has changed.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help run serve setup setup-dev migrate test lint format screenshots clean

VENV := .venv
PY := $(VENV)/bin/python
SITE := $(VENV)/.site-installed
DEV := $(VENV)/.dev-installed
AGENT := $(if $(wildcard agent/pyproject.toml),$(VENV)/.agent-installed)
FRONT := static_vendor/.complete
CODE := $(wildcard agent bench demo emhub_site people microscopes bookings sessions_app preprocessing tests tools) \
	manage.py .ci/fuzz.py .ci/smoke.py

help:
	@echo "make run      the demo facility on http://127.0.0.1:8000 (another port: make run PORT=8001)"
	@echo "make test     every test (some only: make test ARGS='tests/bookings -k overlap')"
	@echo "make setup    the set-up alone: .venv and the front-end files"
	@echo "make serve    the site without the demo, as a facility runs it"
	@echo "make migrate  bring the database that DATABASE_URL names up to date"
	@echo "make lint     what ruff and djlint find; make format puts right what they can"
	@echo "make screenshots  take the pictures of docs/pictures anew, from the demo"
	@echo "make clean    remove what the set-up made; the data folder stays"

run: setup
	@exec $(PY) tools/run.py --demo

serve: setup
	@exec $(PY) tools/run.py

migrate: setup
	@exec $(PY) manage.py migrate

setup: $(SITE) $(AGENT) $(FRONT)
	@:

setup-dev: setup $(DEV)

# -n 2: as many processes as the smallest machine has cores. Settings kept in .env are the site's, not the tests'.
test: setup-dev
	@EMHUB_ENV_FILE=/dev/null exec $(PY) -m pytest -n 2 --dist loadgroup $(ARGS)

lint: setup-dev
	$(PY) -m ruff check $(CODE)
	$(PY) -m ruff format --check $(CODE)
	$(PY) -m djlint --lint --quiet templates

format: setup-dev
	$(PY) -m ruff check --fix $(CODE)
	$(PY) -m ruff format $(CODE)

screenshots: setup-dev
	@exec $(PY) tools/screenshots.py

clean:
	rm -rf $(VENV) .node node_modules static_vendor static_vendor.new .pytest_cache .ruff_cache

# Twice the same: once made is enough, but not when the Python it was made from is gone.
$(VENV)/.made:
	@PYTHON='$(PYTHON)' sh tools/make_venv.sh $(VENV)
$(PY): | $(VENV)/.made
	@PYTHON='$(PYTHON)' sh tools/make_venv.sh $(VENV)

$(SITE): requirements.txt | $(PY)
	@$(PY) tools/install.py "the site" -r requirements.txt
	@touch $@

# Editable: the agent's code is used where it lies, and only a change of its pyproject.toml installs it again.
# Without dependencies: requirements.txt has pinned them.
$(VENV)/.agent-installed: agent/pyproject.toml $(SITE)
	@$(PY) tools/install.py "emhub-agent" --no-deps --editable ./agent
	@touch $@

$(DEV): requirements-dev.txt $(SITE)
	@$(PY) tools/install.py "what the tests need" -r requirements-dev.txt
	@touch $@

$(FRONT): package.json package-lock.json tools/frontend.py tools/requirements-node.txt | $(PY)
	@$(PY) tools/frontend.py
	@touch $@
