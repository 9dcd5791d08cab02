# On a fresh machine with Python >= 3.11 and make, each of these is the only command needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-interop test-lowest lint docs clean

demo: $(VENV)/.base                ## compare with four baselines on docstrings
	@echo "Fits five models to 5,000 paragraphs of documentation: two to five minutes on two cores."
	$(BIN)/python examples/compare_baselines.py
	@echo "Next: $(BIN)/python, and docs/user_guide.md."

test: $(VENV)/.test                ## all tests, doctests and coverage, a process a core
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --cov --cov-report=term

test-interop: $(VENV)/.interop     ## every block of docs/works_with.md, with the libraries it names
	SKLSTM_INTEROP=1 $(BIN)/python -m pytest -m interop --numprocesses auto tests/test_pages.py tests/test_works_with.py tests/test_tuning.py

test-lowest:                       ## all tests, with the lowest versions that pyproject.toml promises
	.ci/lowest

lint: $(VENV)/.lint                ## style, imports, docstrings, formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(VENV)/.docs                ## the site, into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

clean:                             ## what the targets above made
	rm -rf $(VENV) .venv-lowest docs/_build docs/auto_examples docs/generated

# The tests interpret and compile the CUDA kernels, for which no card is needed. Triton has wheels for
# Linux alone; without its dependencies, of which none is needed for that.
INSTALL_TRITON = $(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt triton

COMPILED = setup.py $(wildcard sklstm/kernels/compiled*.c sklstm/kernels/compiled*.h)

# A stamp a set of extras: installed anew when the requirements change.
$(VENV)/.base: EXTRAS :=
$(VENV)/.test: EXTRAS := [test]
$(VENV)/.interop: EXTRAS := [interop,test]
$(VENV)/.lint: EXTRAS := [lint]
$(VENV)/.docs: EXTRAS := [docs]
$(VENV)/.base $(VENV)/.test $(VENV)/.interop $(VENV)/.lint $(VENV)/.docs: pyproject.toml constraints.txt $(COMPILED)
	@echo "Installs into $(VENV): a few minutes, once."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".$(EXTRAS)"
	$(if $(findstring test,$@),$(if $(filter Linux,$(shell uname -s)),$(INSTALL_TRITON)))
	touch $@
