#!/bin/sh
# Makes the built-in model from scratch: tokenizer, training, export, golden file, checks.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-venv/bin/python}
"$python" train_tokenizer.py
"$python" train.py
"$python" export.py
"$python" reference.py
"$python" -m unittest
