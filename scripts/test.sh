#!/usr/bin/env bash
# Lint and tests, in the environment that this script makes: bash scripts/test.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
need_environment requirements.txt requirements-test.txt

export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} # beside other work, waiting threads would steal its cores

ruff check .
ruff format --check .
python -m pytest "$@"
