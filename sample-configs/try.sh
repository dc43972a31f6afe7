#!/bin/sh
# Sets up .venv, runs the gateway sample, asks it once, and stops it again.
set -eu
cd "$(dirname "$0")/.."
.ci/setup
url="http://127.0.0.1:${PORT:-3000}/search?q=why+does+bread+rise&limit=2"

.venv/bin/servd graph --config sample-configs/gateway/servd.toml
.venv/bin/servd --config sample-configs/gateway/servd.toml &
servd=$!
trap 'kill "$servd" 2>/dev/null; wait "$servd"' EXIT

echo "+ curl '$url'"
curl --silent --fail --retry 60 --retry-delay 1 --retry-connrefused "$url"
echo
