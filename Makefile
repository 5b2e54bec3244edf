# The one door.  `make` lists what there is.
#
#   make demo         the main job on real data, in one command
#   make test         all set-up, the C tests, then the Python tests
#   make test-r       the tests against R's packages, which it installs
#   make test-old-readers  what scio writes, read by anndata 0.8 and 0.11
#   make faults       the tests in which every system call fails in turn
#   make build        the extension in place; make ctest, make pytest: one half of the tests
#   make lint         ruff, mypy, stubtest, clang-format, layers, symbols; make format: put it right
#   make asan tsan valgrind     the tests under sanitizers
#   make fuzz T=60    every fuzzer for T seconds
#   make bench        the benchmarks that measured claims stand on, over an hour; make bench-quick: minutes
#   make docs clean distclean
#
# Set-up happens by itself: Debian packages (root or sudo), .venv, requirements, the extension.
# A stamp in .venv remembers what was installed from, so a second run does nothing slow.
# PYTHON=python3.12 chooses another Python, PYTEST_ARGS='-k name' is passed to pytest, which runs in as
# many processes as there are CPUs, at most 4.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Nothing here runs beside something else; the parts that can say so themselves.
.NOTPARALLEL:

T ?= 60
PYTEST_ARGS ?=
BENCH_ARGS ?=
JOBS := $(shell nproc 2>/dev/null || echo 2)
venv := .venv
bin := $(venv)/bin
c := $(MAKE) -j$(JOBS) -f tools/c.mk

.PHONY: help demo build test test-old-readers test-r faults ctest pytest lint format asan tsan valgrind fuzz bench bench-quick docs clean distclean
.PHONY: build-env test-env lint-env bench-env docs-env

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

# ---- set-up: tools/setup_env.sh EXTRA... makes .venv and installs what the extras need ----

build-env:
	@tools/setup_system.sh build
	@tools/setup_env.sh
test-env:
	@tools/setup_system.sh build test
	@tools/setup_env.sh test
lint-env:
	@tools/setup_system.sh build test lint
	@tools/setup_env.sh test lint
bench-env:
	@tools/setup_system.sh build
	@tools/setup_env.sh bench
docs-env:
	@tools/setup_system.sh build
	@tools/setup_env.sh docs

# ---- build and tests ----

build_core = echo "building the extension" && $(bin)/python setup.py -q build_ext --inplace

demo:
	@tools/setup_system.sh build
	@tools/setup_env.sh demo
	@$(build_core)
	@$(bin)/python examples/demo.py

build: build-env
	@$(build_core)

test: test-env
	@$(MAKE) ctest
	@$(MAKE) pytest

ctest:
	@tools/setup_system.sh build
	@$(c) VARIANT=plain tests
	@tools/run_ctests.sh build/c/plain

pytest: test-env
	@$(build_core)
	@$(bin)/python -m pytest -n $(JOBS) --maxprocesses=4 $(PYTEST_ARGS)

# R and Bioconductor are half a gigabyte, so nothing else asks for them.
test-r: test-env
	@tools/setup_system.sh build r
	@$(build_core)
	@$(bin)/python -m pytest -m r $(PYTEST_ARGS)

# Every system call of a write fails in turn; part of `pytest`, too.
faults: test-env
	@$(build_core)
	@$(bin)/python -m pytest tests/faults $(PYTEST_ARGS)

# Old releases of anndata read what scio writes; each has an environment of its own, from PyPI.
test-old-readers: test-env
	@$(build_core)
	@$(bin)/python tools/check_old_readers.py

# ---- style ----

# All checks run, so that one run shows all there is to do; any failure fails the target.
lint: lint-env
	@$(build_core)
	@failed=(); \
	check() { echo "== $$1"; shift; "$$@" || failed+=("$$*"); }; \
	check 'ruff check' $(bin)/ruff check --quiet; \
	check 'ruff format' $(bin)/ruff format --check --quiet; \
	check 'mypy, strict' $(bin)/mypy; \
	check 'stubtest of the extensions' $(bin)/python -m mypy.stubtest scio._core scio._h5write; \
	check 'clang-format' tools/clang_format.sh --dry-run -Werror; \
	check 'layers of csrc' $(bin)/python tools/check_layers.py; \
	check 'exported symbols' tools/check_symbols.sh; \
	for command in "$${failed[@]}"; do echo "FAILED: $$command"; done; \
	[ $${#failed[@]} -eq 0 ]

format: lint-env
	$(bin)/ruff check --fix --exit-zero
	$(bin)/ruff format
	tools/clang_format.sh -i

# ---- sanitizers: each has a build of its own and leaves the ordinary one alone ----

# A request that is too large gives NULL, as malloc does; tests ask for such sizes on purpose.
may_be_null := allocator_may_return_null=1

asan: test-env
	@$(c) VARIANT=asan tests
	@ASAN_OPTIONS="$(may_be_null):$${ASAN_OPTIONS:-}" tools/run_ctests.sh build/c/asan
	@tools/run_asan_pytest.sh $(bin)/python $(PYTEST_ARGS)

# The mapping of new kernels is too random for gcc 12's ThreadSanitizer; setarch -R makes it plain.
tsan:
	@tools/setup_system.sh build
	@$(c) VARIANT=tsan tests
	@export TSAN_OPTIONS="$(may_be_null):halt_on_error=1 second_deadlock_stack=1 $${TSAN_OPTIONS:-}"; \
	if setarch -R true 2>/dev/null; then tools/run_ctests.sh build/c/tsan setarch -R; \
	else tools/run_ctests.sh build/c/tsan env; fi

# valgrind 3.19 does not know AVX-512.
valgrind:
	@tools/setup_system.sh build valgrind
	@$(c) VARIANT=valgrind tests
	@SCIO_CPU=avx2 tools/run_ctests.sh build/c/valgrind \
	    valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite

fuzz:
	@tools/setup_system.sh build fuzz
	@$(c) VARIANT=fuzz fuzzers
	@$(c) VARIANT=fuzz T=$(T) fuzz

# ---- the rest ----

# annbatch needs a Python of its own; without one the benchmarks leave it out and say so.
bench: bench-env
	@$(build_core)
	@tools/setup_bench_peers.sh || true
	$(bin)/python benchmarks/bench_decode_limit.py
	$(bin)/python benchmarks/bench_loader.py $(BENCH_ARGS)
	$(bin)/python benchmarks/report.py
	$(bin)/python benchmarks/bench_io.py
	$(bin)/python benchmarks/bench_pp.py

# Small files and one round: shows that all of it works, its figures mean nothing.
bench-quick: bench-env
	@$(build_core)
	@tools/setup_bench_peers.sh || true
	$(bin)/python benchmarks/bench_loader.py --cells 10000 --files d1-gzip d1-none \
	    --runs 1 --seconds 1 --out build/bench/quick.jsonl
	$(bin)/python benchmarks/report.py build/bench/quick.jsonl
	$(bin)/python benchmarks/bench_io.py --cells 10000 --runs 1 --out build/bench/quick-io.jsonl
	$(bin)/python benchmarks/bench_pp.py --cells 10000 --runs 1 --out build/bench/quick-pp.jsonl

docs: docs-env
	@$(build_core)
	$(bin)/python -m sphinx -W -C -D project=scio -D extensions=myst_parser,numpydoc docs build/docs

clean:
	rm -rf build dist *.egg-info scio/*.so
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(venv)/*' -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(venv) .venv-peers
