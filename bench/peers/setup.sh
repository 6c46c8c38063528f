#!/bin/sh
# Makes a Python environment with PyTorch and transformers, outside the repository.
#   bench/peers/setup.sh [FOLDER]      default: $FATHOM_PEERS, else ~/.cache/fathom/peers
# Prints the path of its python on the last line.
set -eu
folder="${1:-${FATHOM_PEERS:-$HOME/.cache/fathom/peers}}"
python="$folder/bin/python"
if ! "$python" -c 'import torch, transformers' 2>/dev/null; then
  "${PYTHON:-python3}" -m venv "$folder" >&2
  # On x86-64 Linux PyPI's torch carries the CUDA libraries; the CPU build is a tenth of it where this index is reachable.
  "$python" -m pip install --quiet --index-url https://download.pytorch.org/whl/cpu torch >&2 ||
    "$python" -m pip install --quiet torch >&2
  "$python" -m pip install --quiet numpy transformers ml_dtypes fire >&2
  # It asks for an older transformers than training needs, and runs with this one.
  "$python" -m pip install --quiet --no-deps llm-analysis==0.2.2 >&2
fi
echo "$python"
