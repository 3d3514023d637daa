# Sourced by the other scripts: says where the repository is, and puts the environment in its .venv on the PATH. Scripts
# stay in the folder that they are called from: every path, ./data, weights/ and output/ too, is relative to that.
#   fail MESSAGE                     ends the script with one line and exit status 2
#   usage                            prints the comment at the top of the script
#   need_environment FILE ...        installs requirement files into .venv, once
#   threads_wait_passively           for scripts that share their cores
#   run_module MODULE ...            python -m, from any folder

SCRIPT=$(realpath "$0")
REPOSITORY=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")

fail() {
    echo "${SCRIPT##*/}: $1" >&2
    exit 2
}

usage() {
    sed -n '2,${/^#/!q; s/^# \{0,1\}//; p}' "$SCRIPT"
}

need_environment() {
    (cd "$REPOSITORY" && install_into_venv "$@") || exit 2
    PATH=$REPOSITORY/.venv/bin:$PATH
}

install_into_venv() {
    local stamp
    stamp=.venv/installed-$(cat "$@" | sha256sum | cut -d ' ' -f 1)
    [ ! -e "$stamp" ] || return 0
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "install Python 3.10 or newer as python3"
    if [ ! -x .venv/bin/python ]; then
        # PyTorch with its GPU libraries takes 7 GB.
        [ "$(df -Pk . | awk 'NR == 2 { print $4 }')" -gt 9000000 ] || fail "less than 9 GB of disk space are free; PyTorch needs them"
        python3 -m venv .venv || fail "cannot create the environment .venv; install python3-venv"
    fi
    echo "installing $* into .venv (about two minutes the first time)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check $(printf -- '-r %s ' "$@") ||
        fail "the installation failed; see pip's message above, and check the network"
    touch "$stamp"
}

threads_wait_passively() { # spinning threads would steal the cores of other processes
    export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
}

run_module() { # PYTHONSAFEPATH (Python 3.11): a `utils` in the folder of the caller is not ours
    PYTHONPATH=$REPOSITORY PYTHONSAFEPATH=1 python -m "$@"
}

# An environment that is active is used as it is.
[ -n "${VIRTUAL_ENV:-}" ] || [ ! -x "$REPOSITORY/.venv/bin/python" ] || PATH=$REPOSITORY/.venv/bin:$PATH
