-- What may tenants read? Their own rows, and no others.

CREATE TABLE talkmeter.tenant_reader (
    role oid NOT NULL,
    role_name name NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    granted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    granted_by name NOT NULL DEFAULT SESSION_USER,
    PRIMARY KEY (tenant, role_name)
);
REVOKE ALL ON talkmeter.tenant_reader FROM PUBLIC;
COMMENT ON TABLE talkmeter.tenant_reader IS 'Which role reads the rows of which tenant; written by grant_tenant';
COMMENT ON COLUMN talkmeter.tenant_reader.role IS
    'The number of the role, whose heirs read too; 0 if no role had the name when the row was restored';
COMMENT ON COLUMN talkmeter.tenant_reader.role_name IS
    'The role''s name when it was granted: tells another role that has its number, as after a restore elsewhere';
COMMENT ON COLUMN talkmeter.tenant_reader.tenant IS 'The merchant whose rows it reads';
COMMENT ON COLUMN talkmeter.tenant_reader.granted_at IS 'When it was granted';
COMMENT ON COLUMN talkmeter.tenant_reader.granted_by IS 'Who granted it';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.tenant_reader', '');

CREATE FUNCTION talkmeter.number_reader() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
        BEGIN
            NEW.role := COALESCE((SELECT r.oid FROM pg_roles AS r WHERE r.rolname = NEW.role_name), 0);
            RETURN NEW;
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.number_reader() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.number_reader() IS
    'Trigger of talkmeter.tenant_reader: a server into which it is restored has other numbers, and may not have the role';
CREATE TRIGGER number_reader BEFORE INSERT ON talkmeter.tenant_reader
    FOR EACH ROW EXECUTE FUNCTION talkmeter.number_reader();

CREATE FUNCTION talkmeter.is_reader(role oid, role_name name) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT EXISTS (SELECT FROM pg_roles AS a WHERE a.oid = is_reader.role AND a.rolname = is_reader.role_name)
            -- DROP OWNED BY and REVOKE take this back, and leave our row.
            AND EXISTS (
                SELECT FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(p.proacl) AS granted
                WHERE p.oid = 'talkmeter.own_tenants()'::regprocedure AND granted.grantee = is_reader.role)
    $$;
REVOKE ALL ON FUNCTION talkmeter.is_reader(oid, name) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.is_reader(oid, name) IS
    'Whether a role that grant_tenant named is there, by number and name, and still has what was granted';

CREATE FUNCTION talkmeter.create_roles(prefix text DEFAULT 'talkmeter', adopt boolean DEFAULT false) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'create_roles_wrapper';
REVOKE ALL ON FUNCTION talkmeter.create_roles(text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.create_roles(text, boolean) IS
    'Creates the roles prefix_admin (everything), prefix_analyst (reads all), prefix_application (balance, mark, flush) and prefix_tenant (the views my_...), as far as they are missing, and grants them what they are for in this database. None can log in. A role that others can already be, by logging in or as a member, is refused unless adopt is true';

CREATE FUNCTION talkmeter.grant_tenant(role text, tenant text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'grant_tenant_wrapper';
REVOKE ALL ON FUNCTION talkmeter.grant_tenant(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.grant_tenant(text, text) IS
    'Lets a role read the rows of a tenant, and of no other, through the views my_...; a role may have several tenants';

CREATE FUNCTION talkmeter.revoke_tenant(role text, tenant text) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'revoke_tenant_wrapper';
REVOKE ALL ON FUNCTION talkmeter.revoke_tenant(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.revoke_tenant(text, text) IS
    'Takes back what grant_tenant gave, and says whether there was anything';

CREATE FUNCTION talkmeter.own_tenants() RETURNS SETOF text
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_tenants_wrapper';
REVOKE ALL ON FUNCTION talkmeter.own_tenants() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_tenants() IS 'The tenants whose rows both the role that calls and the session''s role read';

CREATE FUNCTION talkmeter.is_own(tenant text) RETURNS boolean
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'is_own_wrapper';
REVOKE ALL ON FUNCTION talkmeter.is_own(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.is_own(text) IS
    'Whether both the role that calls and the session''s role read the rows of a tenant; asked of each row as it is fetched';

-- What a function reads shows in no plan, and no condition of the reader's is evaluated within it.

CREATE FUNCTION talkmeter.own_usage() RETURNS SETOF talkmeter.usage
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_usage() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_usage() IS 'The rows of talkmeter.my_usage';
CREATE VIEW talkmeter.my_usage WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_usage() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_usage FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_usage IS 'What the own tenants'' current periods have used: see usage';

CREATE FUNCTION talkmeter.own_usage_daily() RETURNS SETOF talkmeter.usage_daily
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_usage_daily() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_usage_daily() IS 'The rows of talkmeter.my_usage_daily';
CREATE VIEW talkmeter.my_usage_daily WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_usage_daily() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_usage_daily FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_usage_daily IS 'Net units of each local day of the own tenants: see usage_daily';

CREATE FUNCTION talkmeter.own_usage_history() RETURNS SETOF talkmeter.usage_history
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_usage_history() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_usage_history() IS 'The rows of talkmeter.my_usage_history';
CREATE VIEW talkmeter.my_usage_history WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_usage_history() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_usage_history FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_usage_history IS 'Months of the own tenants that are over: see usage_history';

CREATE FUNCTION talkmeter.own_usage_monthly() RETURNS SETOF talkmeter.usage_monthly
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_usage_monthly() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_usage_monthly() IS 'The rows of talkmeter.my_usage_monthly';
CREATE VIEW talkmeter.my_usage_monthly WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_usage_monthly() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_usage_monthly FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_usage_monthly IS 'The months of the own tenants, from their first on: see usage_monthly';

CREATE FUNCTION talkmeter.own_bills() RETURNS SETOF talkmeter.bills
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_bills() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_bills() IS 'The rows of talkmeter.my_bills';
CREATE VIEW talkmeter.my_bills WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_bills() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_bills FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_bills IS 'What the months of the own tenants come to: see bills';

CREATE FUNCTION talkmeter.own_usage_projection() RETURNS SETOF talkmeter.usage_projection
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_usage_projection() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_usage_projection() IS 'The rows of talkmeter.my_usage_projection';
CREATE VIEW talkmeter.my_usage_projection WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_usage_projection() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_usage_projection FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_usage_projection IS 'What the own tenants'' current periods come to: see usage_projection';

CREATE FUNCTION talkmeter.own_parts() RETURNS SETOF talkmeter.parts
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_parts() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_parts() IS 'The rows of talkmeter.my_parts';
CREATE VIEW talkmeter.my_parts WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_parts() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_parts FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_parts IS 'Every metered interaction of the own tenants: see parts';

CREATE FUNCTION talkmeter.own_audit_trail() RETURNS SETOF talkmeter.audited
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_audit_trail() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_audit_trail() IS
    'The rows of talkmeter.my_audit_trail, with the name of the tenant as it is';
CREATE VIEW talkmeter.my_audit_trail WITH (security_barrier) AS
    SELECT pg_catalog.regexp_replace(v.tenant, '^([=+@\t\r\n-])', '''\1') AS tenant, v.conversation, v.part,
        v.customer, v.started_at, v.first_ai_reply_at, v.last_activity_at, v.ended_at, v.end_reason, v.charged_at,
        v.message_count, v.turn_count, v.ai_replies, v.staff_replies, v.stages, v.models, v.safety_passed, v.charge_id,
        v.tier, v.amount, v.currency, v.taken_back, v.policy, v.policy_version, v.charged_day, v.outcome
    FROM talkmeter.own_audit_trail() AS v
    WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_audit_trail FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_audit_trail IS 'Billable parts of the own tenants: see audit_trail';

CREATE FUNCTION talkmeter.own_charges() RETURNS SETOF talkmeter.charges
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_charges() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_charges() IS 'The rows of talkmeter.my_charges';
CREATE VIEW talkmeter.my_charges WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_charges() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_charges FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_charges IS 'The ledger of the own tenants: see charges';

CREATE FUNCTION talkmeter.own_packs() RETURNS SETOF talkmeter.packs
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_packs() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_packs() IS 'The rows of talkmeter.my_packs';
CREATE VIEW talkmeter.my_packs WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_packs() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_packs FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_packs IS 'Packs that the own tenants bought: see packs';

CREATE FUNCTION talkmeter.own_expired_packs() RETURNS SETOF talkmeter.expired_packs
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_expired_packs() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_expired_packs() IS 'The rows of talkmeter.my_expired_packs';
CREATE VIEW talkmeter.my_expired_packs WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_expired_packs() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_expired_packs FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_expired_packs IS 'Packs of the own tenants that expired before they were used up: see expired_packs';

CREATE FUNCTION talkmeter.own_alerts() RETURNS SETOF talkmeter.alerts
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_alerts() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_alerts() IS 'The rows of talkmeter.my_alerts';
CREATE VIEW talkmeter.my_alerts WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_alerts() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_alerts FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_alerts IS 'What the own tenants were, or are to be, told of their usage: see alerts';

CREATE FUNCTION talkmeter.own_disputes() RETURNS SETOF talkmeter.disputes
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_disputes() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_disputes() IS 'The rows of talkmeter.my_disputes';
CREATE VIEW talkmeter.my_disputes WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_disputes() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_disputes FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_disputes IS 'Disputes of the own tenants: see disputes';

CREATE FUNCTION talkmeter.own_unplanned() RETURNS SETOF talkmeter.unplanned
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_unplanned() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_unplanned() IS 'The rows of talkmeter.my_unplanned';
CREATE VIEW talkmeter.my_unplanned WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_unplanned() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_unplanned FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_unplanned IS 'Billable units of the own tenants that wait for a plan: see unplanned';

CREATE FUNCTION talkmeter.own_uncharged() RETURNS SETOF talkmeter.uncharged
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_uncharged() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_uncharged() IS 'The rows of talkmeter.my_uncharged';
CREATE VIEW talkmeter.my_uncharged WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_uncharged() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_uncharged FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_uncharged IS 'Billable units of the own tenants that wait for a backfill that charges them: see uncharged';

CREATE FUNCTION talkmeter.own_reconciliations() RETURNS SETOF talkmeter.reconciliations
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_reconciliations() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_reconciliations() IS 'The rows of talkmeter.my_reconciliations';
CREATE VIEW talkmeter.my_reconciliations WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_reconciliations() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_reconciliations FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_reconciliations IS 'Days of the own tenants that were counted again: see reconciliations';

CREATE FUNCTION talkmeter.own_policy() RETURNS SETOF talkmeter.applied_policies
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_policy() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_policy() IS 'The rows of talkmeter.my_policy';
CREATE VIEW talkmeter.my_policy WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_policy() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_policy FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_policy IS 'The definitions by which the own tenants are judged: see applied_policies';

CREATE FUNCTION talkmeter.own_prices() RETURNS SETOF talkmeter.prices
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_prices() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_prices() IS 'The rows of talkmeter.my_prices';
CREATE VIEW talkmeter.my_prices WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_prices() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_prices FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_prices IS 'The prices at which the own tenants are billed: see prices';

CREATE FUNCTION talkmeter.my_balance() RETURNS TABLE (tenant text, balance bigint)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_balance';
REVOKE ALL ON FUNCTION talkmeter.my_balance() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_balance() IS 'Units that each own tenant has left before overage';

CREATE FUNCTION talkmeter.my_statement(period_start timestamptz)
    RETURNS TABLE (tenant text, line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_statement';
REVOKE ALL ON FUNCTION talkmeter.my_statement(timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_statement(timestamptz) IS
    'The statement of each own tenant for the period that starts then; an error if none has one';

CREATE FUNCTION talkmeter.my_statement(month date)
    RETURNS TABLE (tenant text, line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_statement_of_month';
REVOKE ALL ON FUNCTION talkmeter.my_statement(date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_statement(date) IS
    'The same of the period that starts in the month of that day, by the tenant''s own zone';

CREATE FUNCTION talkmeter.my_statement_units(period_start timestamptz)
    RETURNS TABLE (tenant text, line integer, kind text, charge_id bigint, conversation text, part integer, charged_at timestamptz,
        started_at timestamptz, ended_at timestamptz, message_count bigint, tier text, units integer, amount numeric, currency text,
        reverses bigint, reason text, outcome text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_statement_units';
REVOKE ALL ON FUNCTION talkmeter.my_statement_units(timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_statement_units(timestamptz) IS
    'Each charge that the statement of each own tenant lists for the period that starts then: see statement_units';

CREATE FUNCTION talkmeter.my_statement_units(month date)
    RETURNS TABLE (tenant text, line integer, kind text, charge_id bigint, conversation text, part integer, charged_at timestamptz,
        started_at timestamptz, ended_at timestamptz, message_count bigint, tier text, units integer, amount numeric, currency text,
        reverses bigint, reason text, outcome text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_statement_units_of_month';
REVOKE ALL ON FUNCTION talkmeter.my_statement_units(date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_statement_units(date) IS
    'The same of the period that starts in the month of that day, by the tenant''s own zone';

CREATE FUNCTION talkmeter.my_bill_file(period_start timestamptz)
    RETURNS TABLE (tenant text, section text, line integer, local_time timestamp, item text, detail text, quantity bigint, unit_price numeric,
        amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_bill_file';
REVOKE ALL ON FUNCTION talkmeter.my_bill_file(timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_bill_file(timestamptz) IS
    'All of the bill of each own tenant for the period that starts then, as rows for one file: see bill_file';

CREATE FUNCTION talkmeter.my_bill_file(month date)
    RETURNS TABLE (tenant text, section text, line integer, local_time timestamp, item text, detail text, quantity bigint, unit_price numeric,
        amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_bill_file_of_month';
REVOKE ALL ON FUNCTION talkmeter.my_bill_file(date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_bill_file(date) IS
    'The same of the period that starts in the month of that day, by the tenant''s own zone';

CREATE FUNCTION talkmeter.my_statement(period text DEFAULT NULL)
    RETURNS TABLE (tenant text, line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_statement_named';
REVOKE ALL ON FUNCTION talkmeter.my_statement(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_statement(text) IS
    'The same of a period by its name, 2026-03; by a day of the month in which it starts; by the instant at which it starts; or of the current one';

CREATE FUNCTION talkmeter.my_statement_units(period text DEFAULT NULL)
    RETURNS TABLE (tenant text, line integer, kind text, charge_id bigint, conversation text, part integer, charged_at timestamptz,
        started_at timestamptz, ended_at timestamptz, message_count bigint, tier text, units integer, amount numeric, currency text,
        reverses bigint, reason text, outcome text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_statement_units_named';
REVOKE ALL ON FUNCTION talkmeter.my_statement_units(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_statement_units(text) IS
    'The same of a period by its name, 2026-03; by a day of the month in which it starts; by the instant at which it starts; or of the current one';

CREATE FUNCTION talkmeter.my_bill_file(period text DEFAULT NULL)
    RETURNS TABLE (tenant text, section text, line integer, local_time timestamp, item text, detail text, quantity bigint, unit_price numeric,
        amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_bill_file_named';
REVOKE ALL ON FUNCTION talkmeter.my_bill_file(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_bill_file(text) IS
    'The same of a period by its name, 2026-03; by a day of the month in which it starts; by the instant at which it starts; or of the current one';

CREATE FUNCTION talkmeter.my_evidence(period_start timestamptz)
    RETURNS TABLE (tenant text, finalization bigint, line bigint, content text, subject text, chained text, digest text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_evidence';
REVOKE ALL ON FUNCTION talkmeter.my_evidence(timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_evidence(timestamptz) IS
    'What proves the frozen statement of each own tenant for the period that starts then: see evidence';

CREATE FUNCTION talkmeter.my_explain(conversation text)
    RETURNS TABLE (tenant text, step integer, occurred_at timestamptz, event text, source regclass, message_id text,
        part integer, effect text, rule text, charge_id bigint, tier text, amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_explain';
REVOKE ALL ON FUNCTION talkmeter.my_explain(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_explain(text) IS 'Why a conversation of an own tenant was billed, or not: see explain';

CREATE FUNCTION talkmeter.my_dispute(charge_id bigint, reason text, tenant text DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_dispute_wrapper';
REVOKE ALL ON FUNCTION talkmeter.my_dispute(bigint, text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_dispute(bigint, text, text) IS
    'Files a dispute about a charge of an own tenant, and returns its id: see dispute';

-- A column of a tenant's view means what it means in the view of all tenants.
DO $$
    DECLARE
        own record;
    BEGIN
        FOR own IN
            SELECT v.oid::regclass AS view, a.attname, pg_catalog.col_description(a.attrelid, a.attnum) AS comment
            FROM pg_catalog.pg_class AS v
            JOIN pg_catalog.pg_class AS o ON o.relnamespace = v.relnamespace AND o.relkind = 'v'
                AND (v.relname = 'my_' || o.relname
                    OR (v.relname, o.relname) IN (('audited', 'audit_trail'), ('my_policy', 'applied_policies')))
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = o.oid AND a.attnum > 0
            WHERE v.relnamespace = 'talkmeter'::regnamespace AND v.relkind = 'v'
        LOOP
            EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', own.view, own.attname, own.comment);
        END LOOP;
    END
$$;
COMMENT ON COLUMN talkmeter.audited.tenant IS 'The merchant who is billed; no apostrophe before it';
