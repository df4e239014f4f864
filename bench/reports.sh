#!/usr/bin/env bash
# Do reports stay fast as the ledger grows?
#
# 200 tenants, 10,000 and 1,000,000 charges (LONG=1: 10,000,000) over 90 days. What a tenant's own page asks should take as
# long, however many charges there are; an audit trail grows with the parts of the month that it lists.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

ledgers=(10000 1000000)
[ -z "$long" ] || ledgers+=(10000000)
if [ -n "${LEDGERS:-}" ]; then read -ra ledgers <<<"$LEDGERS"; fi

week="charged_at >= now() - interval '14 days' AND charged_at < now() - interval '7 days'"
declare -A question=(
    ["1 nothing"]="SELECT 1"
    ["2 balance of a tenant"]="SELECT talkmeter.balance('tenant-7')"
    ["3 usage of a tenant"]="SELECT * FROM talkmeter.usage WHERE tenant = 'tenant-7'"
    ["4 usage of all tenants"]="SELECT count(*), sum(used) FROM talkmeter.usage"
    ["5 charges of a tenant, a week"]="SELECT count(*) FROM talkmeter.charges WHERE tenant = 'tenant-7' AND $week"
    ["6 audit trail of a tenant, a week"]="SELECT count(stages) FROM talkmeter.audit_trail WHERE tenant = 'tenant-7' AND $week"
)

heading="| |" line="|---|"
for charges in "${ledgers[@]}"; do
    heading+=" $(grouped "$charges") charges |" line+="--:|"
    make_ledger "$charges"
done
say "### Reports" "" "Milliseconds in psql, median of nine, caches warm." "" "$heading" "$line"
while read -r name; do
    row="| ${name#* } |"
    for charges in "${ledgers[@]}"; do
        row+=" $(calculate %.1f "$(milliseconds_of "ledger_$charges" "${question[$name]}")") |"
    done
    say "$row"
done < <(printf '%s\n' "${!question[@]}" | sort)
