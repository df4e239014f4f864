-- What would have been charged under another definition and plan?

CREATE FUNCTION talkmeter.simulate(policy text, plan text DEFAULT NULL, from_time timestamptz DEFAULT NULL,
    to_time timestamptz DEFAULT NULL, tenant text DEFAULT NULL)
    RETURNS TABLE (tenant text, units bigint, included_units bigint, pack_units bigint, overage_units bigint,
        amount numeric, currency text, unprovable bigint, billed_units bigint, billed_included_units bigint,
        billed_pack_units bigint, billed_overage_units bigint, billed_amount numeric, billed_currency text,
        units_difference bigint, amount_difference numeric)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'simulate_wrapper';
REVOKE ALL ON FUNCTION talkmeter.simulate(text, text, timestamptz, timestamptz, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.simulate(text, text, timestamptz, timestamptz, text) IS
    'Per tenant, or of one, what the parts charged from from_time on and before to_time (null: without begin, without end) would have cost under another policy and plan (null: those in force) with the packs really bought, beside what was billed, net. Writes nothing. unprovable: units of conversations of which rows are gone, taken as they were billed';

CREATE FUNCTION talkmeter.simulate_parts(policy text, plan text DEFAULT NULL, from_time timestamptz DEFAULT NULL,
    to_time timestamptz DEFAULT NULL, tenant text DEFAULT NULL)
    RETURNS TABLE (tenant text, conversation text, started_at timestamptz, difference text, charged_at timestamptz,
        tier text, amount numeric, currency text, billed_part integer, billed_at timestamptz, billed_tier text,
        billed_amount numeric, billed_currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'simulate_parts_wrapper';
REVOKE ALL ON FUNCTION talkmeter.simulate_parts(text, text, timestamptz, timestamptz, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.simulate_parts(text, text, timestamptz, timestamptz, text) IS
    'Each part that simulate would charge and was not billed (added), the other way round (removed), or that another tier or amount would pay (paid_otherwise)';
