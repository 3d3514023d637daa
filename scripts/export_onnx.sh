#!/usr/bin/env bash
# A stage-2 checkpoint as an ONNX file: bash scripts/export_onnx.sh --pretrain FILE --output FILE, see --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

exec python "$REPOSITORY/scripts/export_onnx.py" "$@"
