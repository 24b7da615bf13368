# Needs Python 3.11+, git and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: test demo check clean

test: $(READY)
	$(BIN)/python -m pytest

demo: $(READY)
	$(BIN)/medrecon demo -o demo-output

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy -p medrecon
	$(BIN)/mypy benchmarks

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf .venv build demo-output *.egg-info
