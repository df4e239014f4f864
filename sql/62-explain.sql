-- Why was a conversation billed, or not?

CREATE FUNCTION talkmeter.explain(tenant text, conversation text)
    RETURNS TABLE (step integer, occurred_at timestamptz, event text, source regclass, message_id text, part integer,
        effect text, rule text, charge_id bigint, tier text, amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'explain_wrapper';
REVOKE ALL ON FUNCTION talkmeter.explain(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.explain(text, text) IS
    'Each event of a conversation in order, the part it fell in, what it did and the rule that said so, with the charge of a billable part; then what was taken back, then rows in quarantine. If nothing of it is metered, one line says so, step 0, and which one may be meant';

CREATE FUNCTION talkmeter.explain_json(tenant text, conversation text) RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT jsonb_build_object(
            'tenant', explain_json.tenant, 'conversation', explain_json.conversation,
            'parts', COALESCE((
                SELECT jsonb_agg(jsonb_strip_nulls(to_jsonb(p)) - 'tenant' - 'conversation' ORDER BY p.started_at, p.part)
                FROM talkmeter.parts AS p
                WHERE p.tenant = explain_json.tenant AND p.conversation = explain_json.conversation), '[]'),
            'steps', COALESCE((
                SELECT jsonb_agg(jsonb_strip_nulls(to_jsonb(e)) ORDER BY e.step)
                FROM talkmeter.explain(explain_json.tenant, explain_json.conversation) AS e
                WHERE e.step > 0), '[]'))
    $$;
REVOKE ALL ON FUNCTION talkmeter.explain_json(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.explain_json(text, text) IS
    'The parts of a conversation and the steps of explain, as one json document without nulls';
