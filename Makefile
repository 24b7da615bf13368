# Needs Python 3.11+, git and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: test demo check cases oracle clean

# Two processes of one thread each: threads that wait for each other cost more than they gain on small tensors.
test: $(READY)
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

demo: $(READY)
	$(BIN)/medrecon demo -o demo-output

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy -p medrecon
	$(BIN)/mypy benchmarks

# Diffusion solvers against an exact posterior: are the figures those of docs/design/oracle_table.md?
oracle: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/posterior/gaussian_oracle.py --check

cases: $(READY)
	$(BIN)/python benchmarks/cases.py

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf .venv build demo-output *.egg-info
