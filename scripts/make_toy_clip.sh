#!/usr/bin/env bash
# Train the toy world's CLIP anew and write clip/toy_clip.pt, the file that the repository ships.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ ! -x .venv/bin/python ]; then
    echo "make_toy_clip.sh: there is no .venv; make it with: bash scripts/quickstart.sh" >&2
    exit 2
fi
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} # beside other work, waiting threads would steal its cores
exec .venv/bin/python -m scripts.make_toy_clip "$@"
