#!/bin/sh
# Sets up .venv and runs the tests: tests/run.sh [PYTEST ARGUMENTS]
set -eu
cd "$(dirname "$0")/.."
.ci/setup dev
exec .venv/bin/python -m pytest "$@"
