#!/bin/sh
# Tests the console in Chromium against the program in TIDEMILL_BIN. SHOTS names a folder for pictures
# taken on the way and of what a test saw when it failed; pictures.mjs takes those of every page.
set -eu
: "${TIDEMILL_BIN:?name the program to test, such as TIDEMILL_BIN=target/debug/tidemill}"
TIDEMILL_BIN="$(realpath "$TIDEMILL_BIN")"
export TIDEMILL_BIN
if [ -n "${SHOTS:-}" ]; then
  mkdir -p "$SHOTS"
  SHOTS="$(realpath "$SHOTS")"
  export SHOTS
fi
cd "$(dirname "$0")"
[ -d node_modules/playwright-core ] || npm ci
exec node --test --test-concurrency=1 console.test.mjs grid.test.mjs
