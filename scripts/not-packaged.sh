#!/usr/bin/env bash
# Does a package own the files that `make install` writes and `make uninstall` removes? Then both ask this and stop.
#
# What is the package's is upgraded and removed by apt: dpkg would not learn of it, and overwrite it with its next version.
# PG_CONFIG says whose files are meant.
set -euo pipefail
# shellcheck source=scripts/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

pg_config=$(find_pg_config) || exit 1
library=$(realpath -m "$("$pg_config" --pkglibdir)")/talkmeter.so
# Fails where nobody owns it, and where there is no dpkg.
owner=$(dpkg-query -S "$library" 2>/dev/null) || exit 0
die "$library belongs to the package ${owner%%:*}." \
    "Remove it first: apt-get remove ${owner%%:*}. Its next version comes with: apt-get install ./FILE.deb"
