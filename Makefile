# make demo    the whole path, from videos to an acting agent, in minutes
# make test    the tests that take seconds (make slow: those that take minutes)
# make faults  runs that are killed twenty times each, and what else goes wrong
# make beam    the test of Apache Beam, which needs an environment of its own
# make parity  SYSTEM=contextwm CHECKOUT=DIR: our code beside the official one
# make lint    ruff, types, spelling, schemas
# make docs    the documentation, into site/; its tools in .venv-docs
# make check   lint and test, what .ci/run does
# make wheel   the library's example in the README, with nothing but the wheel
# make install the environment, .venv, with all that the tests need; the others
#              make what they need of it
# make newest  the tests with the newest versions that setup.cfg allows
# make oldest  the tests with the oldest ones (TESTS=tests/ops: some of them)
# make dmc     the same with the newest MuJoCo too, so without Meta-World
#
# PYTHON=/path/to/python3.13 chooses the interpreter that .venv is made with.

VENV := .venv
RUN := $(VENV)/bin/python
WORKDIR := runs/demo

# Wheels of the pinned MuJoCo exist for these versions only.
USABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
NEW_PIP := import pip, re, sys; \
  sys.exit([int(n) for n in re.findall(r"\d+", pip.__version__)[:2]] < [22, 3])

# The first that fits, else one that uv has or fetches. Looked for when a rule
# needs it, so that `make help` fetches nothing.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
  $$name -c '$(USABLE)' 2> /dev/null && { echo $$name; exit; }; done; \
  { uv python install --quiet 3.13 && uv python find --no-project 3.13; } \
  2> /dev/null || echo python3)

# The stamp's name holds what was installed, so that a second call does nothing
# and a changed requirement installs anew.
KEY := $(shell cat setup.cfg pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)
INSTALLED := $(VENV)/.installed-$(KEY)
TESTABLE := $(VENV)/.testable-$(KEY)
WANTED := $(shell cksum < third_party/requirements.txt | cut -d ' ' -f 1)
GL := $(VENV)/.gl
BEAM := $(VENV)-beam
DOCS := $(VENV)-docs
WHEEL := $(VENV)-wheel
PARITY := $(VENV)-parity
FLAGS ?=
NEWEST := $(VENV)-newest
OLDEST := $(VENV)-oldest
DMC := $(VENV)-dmc
EXTRAS := all,test
TESTS := tests

# dm_control requires labmaze, which has no wheels for Python 3.13 and later and
# which only its mazes import. setup.cfg lists its other requirements.
DM_CONTROL := --no-deps dm_control

# Torch first and from the index of its builds without CUDA, several GB less;
# where that is out of reach or has none, pip's own index decides afterwards.
TORCH = --retries 0 --timeout 10 \
  --extra-index-url https://download.pytorch.org/whl/cpu \
  $(shell sed -n 's/^ *\(torch==[0-9.]*\).*/\1/p' setup.cfg)

# Downloads those images that no installed package has.
TEXTURES := from drp_jax.envs import textures; textures.load(8)

# Every lower end in setup.cfg, as a constraint.
LOWER_ENDS := sed -n 's/^    \([A-Za-z0-9_-]*\)[^>=\#]*>=\([0-9.]*\).*/\1==\2.*/p' setup.cfg

.PHONY: help install demo test slow faults beam parity docs lint check wheel newest \
  oldest dmc
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# make/make/p' Makefile

install: $(TESTABLE)

demo: $(INSTALLED) $(GL)
	@$(RUN) -m experiments.demo --workdir=$(WORKDIR)

# Whole files to up to four processes: what a file compiles, its tests share.
test: $(TESTABLE) $(GL)
	@$(RUN) -m pytest -n auto --maxprocesses=4 --dist=loadfile

slow: $(TESTABLE) $(GL)
	@$(RUN) -m pytest -m slow

faults: $(TESTABLE) $(GL)
	@$(RUN) -m pytest tests/faults -m 'slow or not slow'

beam: $(BEAM)/.installed-$(KEY)
	@$(BEAM)/bin/python -m pytest tests/experiments/run_preprocess_test.py -k beam

# SYSTEM is one of tests/parity/compare_*.py; more in FLAGS='--seed=1 --steps=11'.
parity: $(PARITY)/.installed-$(WANTED)
	@test -n '$(SYSTEM)' -a -n '$(CHECKOUT)' || { echo >&2 \
	  'make parity needs SYSTEM=contextwm (or another) and CHECKOUT=DIR.'; \
	  exit 2; }
	@JAX_PLATFORMS=cpu PYTHONPATH=$(PARITY) $(RUN) -m \
	  tests.parity.compare_$(SYSTEM) --checkout='$(CHECKOUT)' $(FLAGS)

docs: $(DOCS)/.installed-$(KEY)
	@$(DOCS)/bin/mkdocs build

lint: $(TESTABLE)
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(VENV)/bin/pyrefly check --summary=none
	@$(VENV)/bin/typos
	@$(RUN) -m check_jsonschema -q --builtin-schema github-workflows \
	  .github/workflows/*.yml
	@$(RUN) -m check_jsonschema -q \
	  --builtin-schema vendor.citation-file-format CITATION.cff
	@$(RUN) -m pre_commit validate-config

check: lint test

# From an empty folder, where the sources are out of sight.
wheel:
	@rm -rf $(WHEEL) build  # where setuptools keeps removed files
	@$(PYTHON) -m venv --without-pip $(WHEEL)
	@$(PYTHON) -m pip wheel -q --no-deps -w $(WHEEL)/dist .
	@$(PYTHON) -m pip --python $(WHEEL)/bin/python install -q \
	  -c constraints.txt $(WHEEL)/dist/*.whl
	@mkdir $(WHEEL)/empty
	@sed -n '/^```python/,/^```/{/^```/!p}' README.md > $(WHEEL)/example.py
	@cd $(WHEEL)/empty && ../bin/python -P ../example.py

# Without pip in it, since not every python3 has ensurepip.
$(INSTALLED):
	@$(PYTHON) -c '$(USABLE)' 2> /dev/null || { echo >&2 \
	  'Python 3.11 to 3.13 is needed, $(PYTHON) is not: PYTHON=/path/to/python3.13 make ..., or install uv, which fetches one.'; \
	  exit 1; }
	@$(PYTHON) -c '$(NEW_PIP)' 2> /dev/null || { echo >&2 \
	  '$(PYTHON) needs pip 22.3 or newer: apt-get install python3-pip, or $(PYTHON) -m ensurepip --upgrade.'; \
	  exit 1; }
	@echo 'Installing into $(VENV), some 1.3 GB; takes one to five minutes.'
	@$(PYTHON) -m venv --without-pip $(VENV)
	@$(PYTHON) -m pip --python $(RUN) install -c constraints.txt -e '.[all]'
	@$(PYTHON) -m pip --python $(RUN) install -c constraints.txt $(DM_CONTROL)
	@$(RUN) -c '$(TEXTURES)'
	@rm -f $(VENV)/.installed-* $(VENV)/.testable-*
	@touch $@

$(TESTABLE): $(INSTALLED)
	@echo 'Installing what the tests need besides, some 1.2 GB.'
	@$(PYTHON) -m pip --python $(RUN) install $(TORCH) || true
	@$(PYTHON) -m pip --python $(RUN) install -c constraints.txt -e '.[all,test]'
	@touch $@

newest: $(NEWEST)/.installed-$(KEY)
oldest: $(OLDEST)/.installed-$(KEY)
dmc: $(DMC)/.installed-$(KEY)
newest oldest dmc:
	@$(<D)/bin/python -m pytest -n auto --maxprocesses=4 --dist=loadfile $(TESTS)

# Meta-World runs with one dm_control only.
$(NEWEST)/.installed-$(KEY): ENDS := grep '^dm_control==' constraints.txt
$(OLDEST)/.installed-$(KEY): ENDS := $(LOWER_ENDS)
$(DMC)/.installed-$(KEY): ENDS := true
$(DMC)/.installed-$(KEY): EXTRAS := data,dmc,figures,train,test
$(NEWEST)/.installed-$(KEY) $(OLDEST)/.installed-$(KEY) $(DMC)/.installed-$(KEY):
	@$(PYTHON) -m venv --without-pip $(@D)
	@$(ENDS) > $(@D)/constraints.txt
	@$(PYTHON) -m pip --python $(@D)/bin/python install $(TORCH) || true
	@$(PYTHON) -m pip --python $(@D)/bin/python install \
	  -c $(@D)/constraints.txt -e '.[$(EXTRAS)]'
	@$(PYTHON) -m pip --python $(@D)/bin/python install \
	  -c $(@D)/constraints.txt $(DM_CONTROL)
	@touch $@

# Without constraints.txt, whose protobuf, pyarrow and pillow are too new.
$(BEAM)/.installed-$(KEY):
	@$(PYTHON) -m venv --without-pip $(BEAM)
	@$(PYTHON) -m pip --python $(BEAM)/bin/python install -e '.[all,beam]' pytest
	@touch $@

# A folder of packages, for what only official code imports.
$(PARITY)/.installed-$(WANTED): $(TESTABLE)
	@rm -rf $(PARITY)
	@$(PYTHON) -m pip --python $(RUN) install -q --no-deps \
	  --target $(PARITY) -r third_party/requirements.txt
	@touch $@

# Reads the sources without importing them, so nothing else is needed.
$(DOCS)/.installed-$(KEY):
	@$(PYTHON) -m venv --without-pip $(DOCS)
	@$(PYTHON) -m pip --python $(DOCS)/bin/python install \
	  'mkdocs>=1.6,<2' 'mkdocs-material>=9.8' 'mkdocstrings-python>=2' ruff
	@touch $@

# MuJoCo needs a system library to render; its own errors name no cure.
$(GL): $(INSTALLED)
	@if ! $(RUN) -m drp_jax.envs.gl > /dev/null && [ "$$(id -u)" = 0 ] \
	  && command -v apt-get > /dev/null; then \
	  echo 'Installing OpenGL for MuJoCo (libosmesa6).'; \
	  apt-get update -qq || true; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  get='apt-get install -y -qq --no-install-recommends'; \
	  $$get libosmesa6 || $$get libegl1 libgl1 libgl1-mesa-dri; \
	fi
	@$(RUN) -m drp_jax.envs.gl > $@ || { cat $@ >&2; exit 1; }
