#!/usr/bin/env bash
# Lint and tests, in the environment that this script makes: bash scripts/test.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

[ "${1:-}" != --help ] || { usage && exit; }
cd "$REPOSITORY"
need_environment requirements.txt requirements-test.txt
threads_wait_passively

ruff check .
ruff format --check .
OMP_NUM_THREADS=1 python -m pytest --numprocesses 2 --dist loadfile "$@"
