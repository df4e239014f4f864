-- What proves that a frozen statement, and the charges that it lists, are what they were?

CREATE FUNCTION talkmeter.chain_link(digest bytea, content text) RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'chain_link_wrapper';
REVOKE ALL ON FUNCTION talkmeter.chain_link(bytea, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.chain_link(bytea, text) IS 'The SHA-256 of a digest, 32 bytes or none, followed by the bytes of a line';

CREATE AGGREGATE talkmeter.chain(content text) (
    SFUNC = talkmeter.chain_link,
    STYPE = bytea,
    INITCOND = ''
);
REVOKE ALL ON FUNCTION talkmeter.chain(text) FROM PUBLIC;
COMMENT ON AGGREGATE talkmeter.chain(text) IS 'The SHA-256 over lines, each of which is hashed after the digest of those before it';

CREATE FUNCTION talkmeter.subject_of(conversation text, cause_message_id text) RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'subject_of_wrapper';
REVOKE ALL ON FUNCTION talkmeter.subject_of(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.subject_of(text, text) IS 'What a charge is for, as evidence names it by its digest';

CREATE FUNCTION talkmeter.evidence_lines(tenant text, period_start timestamptz, period_end timestamptz)
    RETURNS TABLE (line bigint, content text, subject text)
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    SET timezone = 'UTC'
    AS $$
        WITH frozen AS (
            SELECT p.*
            FROM talkmeter.period AS p
            WHERE p.tenant = evidence_lines.tenant AND p.period_start = evidence_lines.period_start
                AND p.period_end = evidence_lines.period_end AND p.finalization IS NOT NULL
        )
        SELECT 0::bigint, row_to_json(o)::text, NULL::text
        FROM (
            SELECT p.tenant, p.period_start, p.period_end, p.finalization, encode(before.digest, 'hex') AS chained_to,
                p.finalized_at, p.finalized_by, p.last_charge_id, p.last_subscription_id, p.last_pack_id
            FROM frozen AS p
            LEFT JOIN talkmeter.period AS before ON before.tenant = p.tenant
                AND before.finalization = CASE WHEN p.finalization > 1 THEN p.finalization - 1 END
        ) AS o
        UNION ALL
        SELECT s.line, row_to_json(o)::text, NULL
        FROM frozen AS p
        JOIN talkmeter.statement_line AS s USING (tenant, period_start, period_end)
        CROSS JOIN LATERAL (
            SELECT s.line, s.kind, s.of_period_start, s.description, s.quantity, s.unit_price, s.amount, s.currency
        ) AS o
        UNION ALL
        -- No statement has as many lines. What a charge is for is there by a digest: it can be forgotten, and the rest still proved.
        -- An outcome comes last: what names none is proved by what it always was.
        SELECT 2147483647 + LEAST(c.charge_id, 9223372034707292160),
            CASE WHEN c.outcome IS NULL THEN row_to_json(o)::text
                ELSE concat(left(row_to_json(o)::text, -1), ',"outcome":', to_json(c.outcome), '}') END, subject.content
        FROM frozen AS p
        JOIN talkmeter.charge AS c ON c.tenant = p.tenant AND c.posted_period_start = p.period_start
            AND c.posted_period_end = p.period_end
        LEFT JOIN talkmeter.forgotten_subject AS f ON f.tenant = c.tenant AND f.charge_id = c.charge_id
        CROSS JOIN LATERAL (
            SELECT CASE WHEN f.digest IS NULL THEN talkmeter.subject_of(c.conversation, c.cause_message_id) END AS content
        ) AS subject
        CROSS JOIN LATERAL (
            SELECT c.charge_id, encode(COALESCE(f.digest, sha256(convert_to(subject.content, 'UTF8'))), 'hex') AS subject, c.part,
                c.charged_at, c.period_start, c.period_end, c.tier, c.pack_id, c.amount, c.currency, c.plan, c.policy,
                c.policy_version, c.reverses, c.reason, c.note, c.posted_by, c.posted_at, c.cause_source, c.cause_at
        ) AS o
    $$;
REVOKE ALL ON FUNCTION talkmeter.evidence_lines(text, timestamptz, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.evidence_lines(text, timestamptz, timestamptz) IS
    'What the digest of a frozen period is made of, in the order of line: the period itself, then its statement, then the charges that it lists; subject is what a charge is for, null if that was forgotten';

CREATE FUNCTION talkmeter.evidence(tenant text, period_start timestamptz)
    RETURNS TABLE (finalization bigint, line bigint, content text, subject text, chained text, digest text)
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT p.finalization, row_number() OVER own, e.content, e.subject, encode(talkmeter.chain(e.content) OVER own, 'hex'),
            encode(p.digest, 'hex')
        FROM talkmeter.period AS p
        CROSS JOIN LATERAL talkmeter.evidence_lines(p.tenant, p.period_start, p.period_end) AS e
        WHERE p.tenant = evidence.tenant AND p.period_start = evidence.period_start AND p.finalization IS NOT NULL
        WINDOW own AS (PARTITION BY p.finalization ORDER BY e.line)
        ORDER BY 1, 2
    $$;
REVOKE ALL ON FUNCTION talkmeter.evidence(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.evidence(text, timestamptz) IS
    'The digest of a frozen period, and line by line what to compute it anew from: chained is the SHA-256 of the 32 bytes of chained on the line before, none before the first, followed by content; on the last line it is the digest, or something was changed since. The content of a charge names its subject, conversation and message, by a SHA-256; the subject is null if it was forgotten. No rows: the period is not finalized';
