#!/usr/bin/env bash
# Does the extension do in a server what it should? Runs the tests in tests/ on a private server.
#
#   scripts/server-tests.sh [--test server|alone] [PART_OF_A_NAME] [-- --nocapture]
#
# Wants a build (make build). The arguments are cargo's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --quiet --locked --profile checks -p talkmeter-report

# As many tests at a time as there are processors, which is cargo's default: more take as long.
# Nothing here outlives the tests, so no fsync; many connections for the concurrency tests, prepared transactions for 2PC.
# As long as any test has a serializable transaction open, those of all others keep their predicate locks.
exec scripts/with-cluster.sh -c max_connections=100 -c max_prepared_transactions=20 -c max_pred_locks_per_transaction=256 \
    -c fsync=off -c shared_buffers=256MB -- cargo test --locked --profile checks -p talkmeter-tests "$@"
