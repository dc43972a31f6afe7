#!/bin/sh
# Sets up .venv (and .venv-bentoml) and runs the tests: tests/run.sh [PYTEST ARGUMENTS]
set -eu
cd "$(dirname "$0")/.."
.ci/setup dev
.ci/setup bentoml
exec .venv/bin/python -m pytest "$@"
