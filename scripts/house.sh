#!/usr/bin/env bash
# Is the code in order? Its layout, what clippy and shellcheck say, and the tests of the house itself (tests/tests/house).
#
# Wants a build (make build), whose artefacts the lints use again.
set -euo pipefail
# shellcheck source=scripts/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"
cd "$talkmeter_repo"

PGRX_PG_CONFIG_PATH=$(find_pg_config)
export PGRX_PG_CONFIG_PATH

cargo fmt --check
shellcheck scripts/*.sh bench/*.sh .ci/run
major=$(major_of "$PGRX_PG_CONFIG_PATH")
cargo clippy --locked --release -p talkmeter -p talkmeter-engine --no-default-features --features "talkmeter/pg$major" \
    --target-dir "target/pg$major" -- -D warnings
cargo clippy --locked --profile checks -p talkmeter-engine -p talkmeter-report -p talkmeter-tests --all-targets -- -D warnings
cargo test --locked --profile checks -p talkmeter-tests --test house
