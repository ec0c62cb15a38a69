# Needs Python 3.11 or later, pip and make.  Another interpreter: make book PYTHON=python3.12

PYTHON ?= python3
CHROMIUM ?= chromium
# Where `make lock` finds torch's wheel for the processor: its own index, or --find-links FOLDER.
LOCK_TORCH ?= --torch-backend cpu

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PEERS := .venv-peers
AUDIT := .venv-audit
PAGES_INSTALLED := $(VENV)/.installed-pages
CONTROL_INSTALLED := $(VENV)/.installed-control
HTML := _build/html

.PHONY: help book test mutants lab execute language language-model control options bugs bench ablation scale climbs collapse lint pages test-browser peers matrix lock audit slides pdf films solved details table1 clean
.DEFAULT_GOAL := help

help:
	@echo "make book      build the book, and print where to open it"
	@echo "make test      run every cell and every test"
	@echo "make mutants   change every place where the library computes: the tests must notice (hours; ROOMS='returns ppo' for some)"
	@echo "make lab       open the chapters in JupyterLab"
	@echo "make slides    build the book with its slides, and print where they are"
	@echo "make pdf       print the built book as one PDF (needs Chromium)"
	@echo "make films     make the films again"
	@echo "make execute   run the chapters and store their outputs (NB=book/01-….ipynb for one)"
	@echo "make climbs    climb the ladder of the chapters again, from REINFORCE to PPO, and store what is earned (CLIMB=acrobot for another world)"
	@echo "make collapse  train with what may cause a collapse after success, each changed alone, and store the returns"
	@echo "make language  train in the listed world of language again, and store the distances (8 minutes)"
	@echo "make solved    train chapter 7's agent with fifty seeds again, and store what they earn (5 minutes)"
	@echo "make language-model  tune the small language model over seeds and prices of KL again (8 minutes)"
	@echo "make bugs      train with each silent bug of chapter 12, and store the curves (10 minutes)"
	@echo "make control   train in three environments of continuous control, and store the curves"
	@echo "make options   train with every option changed alone, in three worlds, and store the returns (30 minutes)"
	@echo "make details   train without the implementation details that are no options, and store the returns (20 minutes)"
	@echo "make table1    run the experiment of the PPO paper's Table 1, as far as the time reaches (MARKS=5 for a quarter of each run)"
	@echo "make bench     measure the trainer against those of other libraries (half an hour)"
	@echo "make ablation  measure what makes the training loop fast or slow, one thing at a time (15 minutes)"
	@echo "make scale     measure what more environments change, and a cold start (a minute)"
	@echo "make matrix    run every cell and every test as on other machines, ten times (QUICK=1 for less, ROWS=\"mkl user\" for some)"
	@echo "make lock      write requirements.lock anew: every pin with its hashes"
	@echo "make audit     look up what is locked among known vulnerabilities"
	@echo "make lint      check the style of package, tests, tools and chapters"
	@echo "make pages     build the pages and test them in Chromium (SHOTS=DIR for pictures)"
	@echo "make test-browser  only test the built pages in Chromium"
	@echo "make peers     compute the advantages of other libraries again, for the tests"
	@echo "make clean     remove the built pages and the environment"

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "This book needs Python 3.11 or later as '$(PYTHON)'; name another one with PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(PAGES_INSTALLED): requirements-pages.txt $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-pages.txt
	@touch $@

$(CONTROL_INSTALLED): requirements-control.txt $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-control.txt
	@touch $@

book: $(INSTALLED)
	@echo "Building the book"
	@$(BIN)/jupyter-book build --all -n -W --keep-going --quiet . > /dev/null
	@echo "The book is built.  Open file://$(CURDIR)/$(HTML)/index.html"

test: $(INSTALLED)
	$(BIN)/python -m pytest --nbval -n 2 --dist loadscope --quiet

mutants: $(INSTALLED)
	$(BIN)/python tools/mutants.py $(ROOMS)

lab: $(INSTALLED)
	JUPYTER_CONFIG_DIR=$(CURDIR)/tools/lab $(BIN)/jupyter lab --LabApp.custom_css=True start-here.ipynb

slides: book
	@ls $(CURDIR)/$(HTML)/slides/*.html

pdf: $(PAGES_INSTALLED) book
	CHROMIUM=$(CHROMIUM) $(BIN)/python tools/pdf.py

films: $(CONTROL_INSTALLED)
	SDL_VIDEODRIVER=dummy $(BIN)/python -W ignore tools/films.py

execute: $(INSTALLED)
	$(BIN)/python tools/execute.py $(NB)
	$(BIN)/python tools/ledger.py
	$(BIN)/python tools/notation.py
	$(BIN)/python tools/picture.py

climbs: $(INSTALLED)
	$(BIN)/python tools/climbs.py $(or $(CLIMB),cartpole)

collapse: $(INSTALLED)
	$(BIN)/python tools/collapse.py

solved: $(INSTALLED)
	$(BIN)/python tools/solved.py

language: $(INSTALLED)
	$(BIN)/python tools/language.py

options: $(INSTALLED)
	$(BIN)/python tools/options.py

details: $(INSTALLED)
	$(BIN)/python tools/details.py

table1: $(CONTROL_INSTALLED)
	$(BIN)/python tools/table1.py $(if $(MARKS),--marks $(MARKS))

language-model: $(INSTALLED)
	$(BIN)/python tools/language_model.py

control: $(CONTROL_INSTALLED)
	$(BIN)/python tools/control.py

bugs: $(INSTALLED)
	$(BIN)/python tools/bugs.py

bench: $(INSTALLED) $(PEERS)/.installed
	$(BIN)/python bench/run.py

ablation: $(INSTALLED)
	$(BIN)/python -m bench.ablation

scale: $(INSTALLED)
	$(BIN)/python -m bench.scale

matrix: $(INSTALLED)
	$(BIN)/python tools/matrix.py $(if $(QUICK),--quick) $(ROWS)

lock: $(AUDIT)/.installed
	$(AUDIT)/bin/uv pip compile --quiet --generate-hashes --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --no-emit-index-url --no-emit-package ppo-lib \
	  --no-header $(LOCK_TORCH) --output-file requirements.new requirements.txt
	sed -n '/^[^#]/q;p' requirements.lock | cat - requirements.new | sed 's/^\(torch==[^+ ]*\)+cpu/\1/' > requirements.lock.new
	mv requirements.lock.new requirements.lock && rm requirements.new

audit: $(AUDIT)/.installed
	$(AUDIT)/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements.lock

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

peers: $(PEERS)/.installed
	$(PEERS)/bin/python tests/peers/make_reference.py

$(PEERS)/.installed: bench/requirements.txt tests/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(AUDIT)/.installed: requirements-audit.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

test-browser: $(PAGES_INSTALLED)
	CHROMIUM=$(CHROMIUM) $(BIN)/python -m pytest tests/browser -n 2 --quiet $(if $(SHOTS),--screenshots $(SHOTS))

pages: book test-browser

clean:
	rm -rf $(VENV) $(PEERS) $(AUDIT) _build *.egg-info .pytest_cache .ruff_cache
