#!/usr/bin/env bash
# Train the toy world's CLIP and write toy/clip.pt, the file that the repository ships; see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
threads_wait_passively

run_module toy.make_clip "$@"
