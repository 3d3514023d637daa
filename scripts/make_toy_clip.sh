#!/usr/bin/env bash
# Train the toy world's CLIP anew and write clip/toy_clip.pt, the file that the repository ships; see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
threads_wait_passively

exec python scripts/make_toy_clip.py "$@"
