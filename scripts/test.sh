#!/usr/bin/env bash
# Lint and tests, in the environment that this script makes:
#   bash scripts/test.sh [--extras] [pytest arguments]
# --extras also installs the web, ONNX and SAM extras, and Chromium; the tests that need them are skipped otherwise.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

install_chromium() { # only the downloads have a time limit: apt must not be interrupted while it installs
    export DEBIAN_FRONTEND=noninteractive
    command -v apt-get && [ "$(id -u)" = 0 ] && timeout 60 apt-get -qq update &&
        timeout 120 apt-get -qq --no-install-recommends --download-only install chromium &&
        apt-get -qq --no-install-recommends install chromium
} >/dev/null

[ "${1:-}" != --help ] || { usage && exit; }
cd "$REPOSITORY"
requirements=(requirements.txt requirements-test.txt)
if [ "${1:-}" = --extras ]; then
    shift
    requirements+=(requirements-{web,onnx,sam,browser}.txt)
    command -v chromium google-chrome >/dev/null || install_chromium ||
        echo "Chromium is missing and apt could not install it; the test in a browser is skipped"
fi
need_environment "${requirements[@]}"
threads_wait_passively

ruff check .
ruff format --check .
OMP_NUM_THREADS=1 python -m pytest --numprocesses 2 --dist loadfile "$@"
