# Sourced by the other scripts: goes to the repository's root and makes the environment in .venv, once.
#   need_environment requirements.txt [requirements-test.txt ...]

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

fail() {
    echo "$(basename "$0"): $1" >&2
    exit 2
}

need_environment() {
    local stamp
    stamp=$(cat "$@" | sha256sum | cut -d ' ' -f 1)
    if [ ! -e ".venv/installed-$stamp" ]; then
        command -v python3 >/dev/null || fail "python3 is not there; install Python 3.10 or newer"
        python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "python3 is older than 3.10; install a newer one"
        if [ ! -x .venv/bin/python ]; then
            python3 -c 'import ensurepip' 2>/dev/null || fail "python3 cannot make environments; install python3-venv"
            # PyTorch with its GPU libraries takes 7 GB.
            [ "$(df -Pk . | awk 'NR == 2 { print $4 }')" -gt 9000000 ] || fail "less than 9 GB are free here; make room for PyTorch"
            python3 -m venv .venv || fail "the environment .venv could not be made; see the message above"
        fi
        echo "installing $* into .venv (the first time this takes about two minutes)"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check $(printf -- '-r %s ' "$@") ||
            fail "the installation failed; see pip's message above, and whether the network is there"
        touch ".venv/installed-$stamp"
    fi
    PATH="$PWD/.venv/bin:$PATH"
    export PATH
}

threads_wait_passively() { # beside other work, waiting threads would steal its cores
    export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
}

# A script's own commands run in the environment that is active, or in .venv where that is there.
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x .venv/bin/python ]; then
    PATH="$PWD/.venv/bin:$PATH"
    export PATH
fi
