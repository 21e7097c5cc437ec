#!/usr/bin/env bash
# Build detectron2 into the active environment. Its setup imports torch, so it must see this environment: no build
# isolation. The last release (v0.6, 2021) predates torch 2; this commit of its main branch is the one in wide use.
set -euo pipefail
commit=e0ec4e189d438848521aee7926f9900e114229f5
python -m pip install --no-build-isolation "git+https://github.com/facebookresearch/detectron2.git@${commit}"
python -c 'from detectron2 import _C'
