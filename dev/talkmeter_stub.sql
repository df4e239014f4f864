-- How does an application run on a PostgreSQL where talkmeter cannot be installed? FOR DEVELOPMENT ONLY: nothing is metered.
--
-- A stub in plain SQL, for any PostgreSQL from 14 on and any role that may create a schema. Every call and every view of
-- docs/reference.md that an application, a migration or a report uses is there, with the same names, arguments and types, and so are
-- the tables that are filled by hand. Calls do nothing, views are empty, a balance is null.
--
--   psql -d app_development -v ON_ERROR_STOP=1 -f dev/talkmeter_stub.sql
--
-- Where talkmeter is installed it refuses to load. Where it is loaded CREATE EXTENSION talkmeter fails, until
-- DROP SCHEMA talkmeter CASCADE. How it fits into a project: docs/clients.md

BEGIN;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'talkmeter') THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = 'talkmeter itself is installed in this database, so its stub is not loaded',
            HINT = 'There is nothing to do: the calls are there, and they meter.';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'talkmeter') THEN
        RAISE duplicate_schema USING
            MESSAGE = 'schema "talkmeter" already exists',
            HINT = 'If it is an earlier load of the stub: DROP SCHEMA talkmeter CASCADE, then load it again.';
    END IF;
    RAISE WARNING USING
        MESSAGE = 'this is the development stub of talkmeter: NOTHING IS METERED in this database',
        HINT = 'To meter, install the extension on a server of your own.';
END
$$;

-- Nothing of the application's is found by chance.
SET LOCAL search_path = pg_catalog, pg_temp;

CREATE SCHEMA talkmeter;
COMMENT ON SCHEMA talkmeter IS 'The development stub of talkmeter: nothing is metered';
GRANT USAGE ON SCHEMA talkmeter TO PUBLIC;

-- --- Attaching: the table must be there, the rest is not looked at ---

CREATE FUNCTION talkmeter.attach(source regclass, policy text, mapping jsonb, default_plan text DEFAULT NULL, dry_run boolean DEFAULT false,
        strict boolean DEFAULT false, since timestamptz DEFAULT NULL, row_mode boolean DEFAULT false) RETURNS TABLE(message_id text,
        tenant text, conversation text, occurred_at timestamptz, kind text, excluded text)
    LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION talkmeter.attach_status(source regclass, mapping jsonb) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.remap(source regclass, mapping jsonb, policy text DEFAULT NULL, default_plan text DEFAULT NULL,
        strict boolean DEFAULT NULL, since timestamptz DEFAULT NULL, dry_run boolean DEFAULT false) RETURNS TABLE(before text, after text,
        rows bigint, conversations bigint, parts bigint, charges bigint)
    LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION talkmeter.detach(source regclass) RETURNS void LANGUAGE sql AS '';

-- --- Metering ---

CREATE FUNCTION talkmeter.mark(tenant text, conversation text, kind text, at timestamptz DEFAULT NULL) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.flush() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.sweep(as_of timestamptz DEFAULT NULL) RETURNS bigint LANGUAGE sql RETURN 0;
CREATE PROCEDURE talkmeter.sweep_batches(as_of timestamptz DEFAULT NULL, batch integer DEFAULT 1000) LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.start_worker() RETURNS TABLE(started boolean, pid integer) LANGUAGE plpgsql AS 'BEGIN END';
CREATE PROCEDURE talkmeter.backfill(source regclass, from_time timestamptz, to_time timestamptz, charge boolean DEFAULT true,
        batch integer DEFAULT 500)
    LANGUAGE sql AS '';
CREATE PROCEDURE talkmeter.archive(before timestamptz, batch integer DEFAULT 500) LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.gaps(source regclass) RETURNS TABLE(from_time timestamptz, to_time timestamptz, because text, events bigint)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.retry_quarantine() RETURNS bigint LANGUAGE sql RETURN 0;
CREATE FUNCTION talkmeter.reset_for_tests() RETURNS void LANGUAGE sql AS '';

-- --- What is sold ---

CREATE FUNCTION talkmeter.define_policy(definition jsonb) RETURNS integer LANGUAGE sql RETURN 1;
CREATE FUNCTION talkmeter.define_plan(definition jsonb) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.define_pack(definition jsonb) RETURNS void LANGUAGE sql AS '';

-- --- A tenant's account: on no plan, so a balance is null ---

CREATE FUNCTION talkmeter.subscribe(tenant text, plan text, since timestamptz DEFAULT NULL, timezone text DEFAULT 'UTC',
        anchor_day integer DEFAULT NULL, policy text DEFAULT NULL) RETURNS bigint
    LANGUAGE sql RETURN 1;
CREATE FUNCTION talkmeter.change_plan(tenant text, plan text, at timestamptz DEFAULT NULL) RETURNS timestamptz
    LANGUAGE sql RETURN COALESCE(at, now());
CREATE FUNCTION talkmeter.cancel(tenant text, at timestamptz DEFAULT NULL) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.buy_pack(tenant text, pack text, purchase_key text DEFAULT NULL, purchased_at timestamptz DEFAULT NULL)
        RETURNS bigint
    LANGUAGE sql RETURN 1;
CREATE FUNCTION talkmeter.refund_pack(tenant text, pack_id bigint) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.set_alert_channel(tenant text, channel text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.balance(tenant anyelement) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT NULL::bigint';
CREATE FUNCTION talkmeter.balance(tenant text) RETURNS bigint LANGUAGE sql STABLE RETURN NULL::bigint;
CREATE FUNCTION talkmeter.months_of(tenant text) RETURNS TABLE(period text, first_day date, period_start timestamptz,
        period_end timestamptz)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.period_at(tenant text, at timestamptz) RETURNS TABLE(period_start timestamptz, period_end timestamptz)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';

-- --- Credits, disputes, reconciliation ---

CREATE FUNCTION talkmeter.credit(tenant text, charge_id bigint, note text) RETURNS bigint LANGUAGE sql RETURN 1;
CREATE FUNCTION talkmeter.dispute(tenant text, charge_id bigint, reason text) RETURNS bigint LANGUAGE sql RETURN 1;
CREATE FUNCTION talkmeter.dispute(tenant text, conversation text, part integer, reason text) RETURNS bigint LANGUAGE sql RETURN 1;
CREATE FUNCTION talkmeter.resolve_dispute(tenant text, dispute_id bigint, resolution text, note text DEFAULT NULL) RETURNS void
    LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.reconcile(day date) RETURNS bigint LANGUAGE sql RETURN 0;
CREATE FUNCTION talkmeter.report_external(tenant text, day date, units bigint) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.review(tenant text, day date) RETURNS void LANGUAGE sql AS '';

-- --- Statements ---

CREATE FUNCTION talkmeter.finalize(tenant text, period_start timestamptz) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.statement(tenant text, month date) RETURNS TABLE(line integer, kind text, of_period_start timestamptz,
        description text, quantity bigint, unit_price numeric, amount numeric, currency text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.statement(tenant text, period_start timestamptz) RETURNS TABLE(line integer, kind text,
        of_period_start timestamptz, description text, quantity bigint, unit_price numeric, amount numeric, currency text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.statement_units(tenant text, month date) RETURNS TABLE(line integer, kind text, charge_id bigint,
        conversation text, part integer, charged_at timestamptz, started_at timestamptz, ended_at timestamptz, message_count bigint, tier text,
        units integer, amount numeric, currency text, reverses bigint, reason text, outcome text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.bill_file(tenant text, month date) RETURNS TABLE(section text, line integer, local_time timestamp,
        item text, detail text, quantity bigint, unit_price numeric, amount numeric, currency text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.statement_units(tenant text, period_start timestamptz) RETURNS TABLE(line integer, kind text, charge_id bigint,
        conversation text, part integer, charged_at timestamptz, started_at timestamptz, ended_at timestamptz, message_count bigint, tier text,
        units integer, amount numeric, currency text, reverses bigint, reason text, outcome text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.bill_file(tenant text, period_start timestamptz) RETURNS TABLE(section text, line integer, local_time timestamp,
        item text, detail text, quantity bigint, unit_price numeric, amount numeric, currency text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.statement(tenant text, period text DEFAULT NULL) RETURNS TABLE(line integer, kind text, of_period_start
        timestamptz, description text, quantity bigint, unit_price numeric, amount numeric, currency text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.statement_units(tenant text, period text DEFAULT NULL) RETURNS TABLE(line integer, kind text, charge_id bigint,
        conversation text, part integer, charged_at timestamptz, started_at timestamptz, ended_at timestamptz, message_count bigint, tier text,
        units integer, amount numeric, currency text, reverses bigint, reason text, outcome text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.bill_file(tenant text, period text DEFAULT NULL) RETURNS TABLE(section text, line integer, local_time timestamp,
        item text, detail text, quantity bigint, unit_price numeric, amount numeric, currency text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.evidence(tenant text, period_start timestamptz) RETURNS TABLE(finalization bigint, line bigint, content text, subject text,
        chained text, digest text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';

-- --- Reports ---

CREATE FUNCTION talkmeter.explain(tenant text, conversation text) RETURNS TABLE(step integer, occurred_at timestamptz, event text,
        source regclass, message_id text, part integer, effect text, rule text, charge_id bigint, tier text, amount numeric, currency text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.explain_json(tenant text, conversation text) RETURNS jsonb
    LANGUAGE sql STABLE RETURN jsonb_build_object('tenant', tenant, 'conversation', conversation, 'parts', '[]'::jsonb, 'steps', '[]'::jsonb);
CREATE FUNCTION talkmeter.simulate(policy text, plan text DEFAULT NULL, from_time timestamptz DEFAULT NULL,
        to_time timestamptz DEFAULT NULL, tenant text DEFAULT NULL) RETURNS TABLE(tenant text,
        units bigint, included_units bigint, pack_units bigint, overage_units bigint, amount numeric, currency text, unprovable bigint,
        billed_units bigint, billed_included_units bigint, billed_pack_units bigint, billed_overage_units bigint, billed_amount numeric,
        billed_currency text, units_difference bigint, amount_difference numeric)
    LANGUAGE sql STABLE AS $$ SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, units bigint, included_units bigint,
            pack_units bigint, overage_units bigint, amount numeric, currency text, unprovable bigint, billed_units bigint,
            billed_included_units bigint, billed_pack_units bigint, billed_overage_units bigint, billed_amount numeric, billed_currency text,
            units_difference bigint, amount_difference numeric) $$;
CREATE FUNCTION talkmeter.simulate_parts(policy text, plan text DEFAULT NULL, from_time timestamptz DEFAULT NULL,
        to_time timestamptz DEFAULT NULL, tenant text DEFAULT NULL) RETURNS TABLE(tenant text,
        conversation text, started_at timestamptz, difference text, charged_at timestamptz, tier text, amount numeric, currency text,
        billed_part integer, billed_at timestamptz, billed_tier text, billed_amount numeric, billed_currency text)
    LANGUAGE sql STABLE AS $$ SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, conversation text, started_at timestamptz,
            difference text, charged_at timestamptz, tier text, amount numeric, currency text, billed_part integer, billed_at timestamptz,
            billed_tier text, billed_amount numeric, billed_currency text) $$;
CREATE FUNCTION talkmeter.verify() RETURNS TABLE(problem text, tenant text, object text, detail text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';

-- What says that this is the stub.
CREATE FUNCTION talkmeter.fleet(servers text[], schema text DEFAULT 'fleet') RETURNS SETOF text LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION talkmeter.begin_move(tenant text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.expect_tenant(tenant text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.export_tenant(tenant text) RETURNS TABLE(line bigint, relation text, content text[])
    LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION talkmeter.import_tenant(document regclass) RETURNS uuid LANGUAGE sql RETURN NULL::uuid;
CREATE FUNCTION talkmeter.end_move(tenant text, receipt uuid) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.cancel_move(tenant text) RETURNS uuid LANGUAGE sql RETURN NULL::uuid;
CREATE FUNCTION talkmeter.health(prepared_for interval DEFAULT '5min', unswept_for interval DEFAULT '15min')
        RETURNS TABLE(problem text, object text, detail text, hint text)
    LANGUAGE sql STABLE AS $$
        SELECT 'stub', 'talkmeter', 'This is the development stub: nothing is metered.',
            'Where talkmeter can be installed: DROP SCHEMA talkmeter CASCADE; CREATE EXTENSION talkmeter;'
    $$;

-- --- Roles and tenants ---

-- So that a migration can grant them; everybody may do everything all the same.
CREATE FUNCTION talkmeter.create_roles(prefix text DEFAULT 'talkmeter', adopt boolean DEFAULT false) RETURNS SETOF text
    LANGUAGE plpgsql AS $$
        DECLARE
            name text;
        BEGIN
            FOREACH name IN ARRAY ARRAY['_admin', '_analyst', '_application', '_tenant'] LOOP
                name := prefix || name;
                IF to_regrole(quote_ident(name)) IS NULL THEN
                    EXECUTE format('CREATE ROLE %I', name);
                END IF;
                RETURN NEXT name;
            END LOOP;
        END
    $$;

CREATE FUNCTION talkmeter.grant_tenant(role text, tenant text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION talkmeter.revoke_tenant(role text, tenant text) RETURNS boolean LANGUAGE sql RETURN false;
CREATE FUNCTION talkmeter.my_balance() RETURNS TABLE(tenant text, balance bigint) LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.my_statement(period_start timestamptz) RETURNS TABLE(tenant text, line integer, kind text,
        of_period_start timestamptz, description text, quantity bigint, unit_price numeric, amount numeric, currency text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.my_statement(month date) RETURNS TABLE(tenant text, line integer, kind text, of_period_start timestamptz,
        description text, quantity bigint, unit_price numeric, amount numeric, currency text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.my_statement_units(month date) RETURNS TABLE(tenant text, line integer, kind text, charge_id bigint,
        conversation text, part integer, charged_at timestamptz, started_at timestamptz, ended_at timestamptz, message_count bigint, tier text,
        units integer, amount numeric, currency text, reverses bigint, reason text, outcome text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.my_bill_file(month date) RETURNS TABLE(tenant text, section text, line integer, local_time timestamp,
        item text, detail text, quantity bigint, unit_price numeric, amount numeric, currency text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.my_statement_units(period_start timestamptz) RETURNS TABLE(tenant text, line integer, kind text, charge_id bigint,
        conversation text, part integer, charged_at timestamptz, started_at timestamptz, ended_at timestamptz, message_count bigint, tier text,
        units integer, amount numeric, currency text, reverses bigint, reason text, outcome text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.my_bill_file(period_start timestamptz) RETURNS TABLE(tenant text, section text, line integer, local_time timestamp,
        item text, detail text, quantity bigint, unit_price numeric, amount numeric, currency text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.my_statement(period text DEFAULT NULL) RETURNS TABLE(tenant text, line integer, kind text, of_period_start
        timestamptz, description text, quantity bigint, unit_price numeric, amount numeric, currency text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.my_statement_units(period text DEFAULT NULL) RETURNS TABLE(tenant text, line integer, kind text, charge_id bigint,
        conversation text, part integer, charged_at timestamptz, started_at timestamptz, ended_at timestamptz, message_count bigint, tier text,
        units integer, amount numeric, currency text, reverses bigint, reason text, outcome text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.my_bill_file(period text DEFAULT NULL) RETURNS TABLE(tenant text, section text, line integer, local_time
        timestamp, item text, detail text, quantity bigint, unit_price numeric, amount numeric, currency text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.my_evidence(period_start timestamptz) RETURNS TABLE(tenant text, finalization bigint, line bigint,
        content text, subject text, chained text, digest text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.my_explain(conversation text) RETURNS TABLE(tenant text, step integer, occurred_at timestamptz, event text,
        source regclass, message_id text, part integer, effect text, rule text, charge_id bigint, tier text, amount numeric, currency text)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';

CREATE FUNCTION talkmeter.my_dispute(charge_id bigint, reason text, tenant text DEFAULT NULL) RETURNS bigint
    LANGUAGE sql RETURN NULL::bigint;

-- --- Forgetting ---

CREATE FUNCTION talkmeter.forget_conversation(tenant text, conversation text) RETURNS text LANGUAGE sql RETURN NULL;
CREATE FUNCTION talkmeter.forget_customer(tenant text, customer text) RETURNS SETOF text LANGUAGE plpgsql AS 'BEGIN END';

-- --- Of use without a meter ---

CREATE FUNCTION talkmeter.conversation_key(VARIADIC parts text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN array_position(parts, NULL) IS NULL
        THEN (SELECT string_agg(replace(replace(p.part, '%', '%25'), '/', '%2F'), '/' ORDER BY p.place)
            FROM unnest(parts) WITH ORDINALITY AS p (part, place)) END
$$;
CREATE FUNCTION talkmeter.currency_digits(currency text) RETURNS integer LANGUAGE sql IMMUTABLE RETURN 2;
-- What it would find stays null.
CREATE FUNCTION talkmeter.look_up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';

-- --- Triggers: those of an attached table are dumped with it ---

CREATE FUNCTION talkmeter.on_insert() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION talkmeter.on_update() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION talkmeter.on_delete() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION talkmeter.on_truncate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION talkmeter.on_status_insert() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION talkmeter.on_status_update() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';

-- --- What is granted to a role that reads single views ---

CREATE FUNCTION talkmeter.audit_of(tenant text, conversation text, first bytea, last bytea)
        RETURNS TABLE(customer text, stages text[], models text[], safety_passed boolean)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';
CREATE FUNCTION talkmeter.local_day(tenant text, at timestamptz, charge_id bigint DEFAULT NULL) RETURNS date LANGUAGE sql STABLE RETURN NULL::date;
CREATE FUNCTION talkmeter.period_name(tenant text, period_start timestamptz, period_end timestamptz) RETURNS text
    LANGUAGE sql STABLE RETURN NULL;
CREATE FUNCTION talkmeter.working()
        RETURNS TABLE(pid integer, database name, usename name, work text, done bigint, total bigint, unit text, started_at timestamptz)
    LANGUAGE plpgsql STABLE AS 'BEGIN END';

-- --- Tables that are filled by hand: nobody reads them ---

CREATE TABLE talkmeter.holidays (day date PRIMARY KEY, name text NOT NULL);
CREATE TABLE talkmeter.threshold (kind text COLLATE "C" PRIMARY KEY, percent bigint NOT NULL, shipped boolean NOT NULL DEFAULT false);
INSERT INTO talkmeter.threshold (kind, percent, shipped) VALUES ('allowance_80', 80, true), ('allowance_100', 100, true);

-- --- Views: empty ---

CREATE VIEW talkmeter.alerts AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, period_start timestamptz, kind text, fired_at timestamptz, detail text,
            notified_at timestamptz, muted boolean,
        day date, channel text, period text);
CREATE VIEW talkmeter.audited AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, conversation text, part integer, customer text, started_at timestamptz,
            first_ai_reply_at timestamptz,
        last_activity_at timestamptz, ended_at timestamptz, end_reason text, charged_at timestamptz, message_count bigint, turn_count
        integer, ai_replies bigint, staff_replies bigint, stages text[], models text[], safety_passed boolean, charge_id bigint, tier
        text, amount numeric, currency text, taken_back boolean, policy text, policy_version integer, charged_day date,
        outcome text);
CREATE VIEW talkmeter.bills AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, period text, period_start timestamptz,
        period_end timestamptz, status text, base numeric, packs numeric, overage numeric, credits numeric, total numeric, currency text,
        finalized_at timestamptz);
CREATE VIEW talkmeter.charges AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, charge_id bigint, conversation text, part integer, charged_at
            timestamptz, period_start timestamptz,
        posted_period_start timestamptz, tier text, pack_id bigint, amount numeric, currency text, plan text, policy text,
        policy_version integer, reverses bigint, reason text, posted_at timestamptz, note text, posted_by name, cause_source text,
        cause_message_id text, cause_at timestamptz, charged_day date, period text, posted_period text, outcome text);
CREATE VIEW talkmeter.clock AS SELECT now(), interval '0' AS clock_offset;
CREATE VIEW talkmeter.disputes AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, dispute_id bigint, charge_id bigint, conversation text, part integer, reason
        text, state text, filed_at
        timestamptz, filed_by name, due_at timestamptz, overdue boolean, resolved_at timestamptz, resolved_by name, note text,
        due_day date);
CREATE VIEW talkmeter.expired_packs AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, pack_id bigint, pack text, size bigint, expired_unused bigint, expires_at
        timestamptz, expires_day date);
CREATE VIEW talkmeter.journal AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (at timestamptz, by name, call text, tenant text,
        arguments jsonb, note text, transaction xid8);
CREATE VIEW talkmeter.mappings AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (source regclass, since timestamptz, until_time timestamptz,
        policy text, mapping jsonb);
CREATE VIEW talkmeter.pack_offers AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (name text, size bigint, price numeric, currency text,
        valid_for text);
CREATE VIEW talkmeter.packs AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, pack_id bigint, pack text, size bigint, remaining bigint, price numeric,
        currency text, purchased_at
        timestamptz, expires_at timestamptz, purchase_key text, refunded_at timestamptz, refunded_by name, purchased_day date,
        expires_day date);
CREATE VIEW talkmeter.parts AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, conversation text, part integer, policy text, policy_version integer,
            status text, started_at timestamptz,
        first_ai_reply_at timestamptz, last_activity_at timestamptz, ended_at timestamptz, end_reason text, billable boolean,
        not_billable_because text, charged_at timestamptz, message_count bigint, turn_count integer, ai_replies bigint, staff_replies
        bigint, started_day date, outcome text, units integer, final_at timestamptz);
CREATE VIEW talkmeter.plans AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (name text, included bigint, overage_rate numeric, price numeric,
        currency text, rates jsonb);
CREATE VIEW talkmeter.policies AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (name text, policy_version integer, label text,
        effective_from timestamptz, starts_on text[], ends_on text[], idle_timeout interval, quiet_review_after interval,
        max_duration interval, turn_limit integer, charge_on text, charge_events text[], outcomes jsonb,
        final_after text, once_per text, staff_reply_blocks boolean, error_before_reply_waives boolean, exclude_prefixes text[],
        retroactive boolean, note text, defined_at timestamptz, defined_by name);
CREATE VIEW talkmeter.progress AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (pid integer, database name, usename name, work text,
        done bigint, total bigint, unit text, started_at timestamptz);
CREATE VIEW talkmeter.quarantine AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (source regclass, message_id text, tenant text,
        conversation text, occurred_at timestamptz, reason text, quarantined_at timestamptz, detail text, mark_kind text, hint text);
CREATE VIEW talkmeter.reconciliations AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, day date, charged bigint,
        recounted bigint, unprovable bigint, external bigint, flagged boolean, reconciled_at timestamptz, reviewed_by name,
        reviewed_at timestamptz);
CREATE VIEW talkmeter.revenue_daily AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, day date, base numeric, packs numeric,
        overage numeric, total numeric, currency text);
CREATE VIEW talkmeter.source_gaps AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (source regclass, from_time timestamptz,
        until_time timestamptz, because text);
CREATE VIEW talkmeter.sources AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (source regclass, policy text, default_plan text,
        strict boolean, starts_at timestamptz, attached_at timestamptz, attached_by name, mapping jsonb, role text, row_mode boolean);
CREATE VIEW talkmeter.sweepers AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (sweeper text, role text, pid integer, swept_at timestamptz,
        reconciled date, failed_since timestamptz, error_code text, error text);
CREATE VIEW talkmeter.uncharged AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, conversation text, part integer, charged_at timestamptz, policy text,
        policy_version integer, source regclass,
        charged_day date, outcome text);
CREATE VIEW talkmeter.unevaluated AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, conversation text, part integer, policy text, policy_version integer,
        started_at timestamptz, first_ai_reply_at
        timestamptz, last_activity_at timestamptz, message_count bigint, turn_count integer, ai_replies bigint, staff_replies bigint,
        started_day date);
CREATE VIEW talkmeter.unplanned AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, conversation text, part integer, charged_at timestamptz, policy text,
        policy_version integer, charged_day date, outcome text);
CREATE VIEW talkmeter.findings AS
    SELECT ''::text AS problem, ''::text AS object, ''::text AS detail, ''::text AS hint WHERE false;
CREATE VIEW talkmeter.definitions AS
    SELECT ''::text AS kind, ''::text AS name, '{}'::jsonb AS definition WHERE false;
CREATE VIEW talkmeter.moves AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, state text, since timestamptz, by name, exported_at timestamptz,
        waiting bigint);
CREATE VIEW talkmeter.unswept AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, conversation text, part integer, due_at timestamptz);
CREATE VIEW talkmeter.usage AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, plan text, period_start timestamptz, period_end timestamptz, used
            bigint, included bigint, included_used bigint,
        included_remaining bigint, pack_balance bigint, pack_used bigint, overage_units bigint, overage_rate numeric,
        estimated_overage numeric, currency text, period text);
CREATE VIEW talkmeter.usage_daily AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, day date, used bigint);
CREATE VIEW talkmeter.usage_history AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, plan text, period_start timestamptz, period_end timestamptz, used
            bigint, included bigint, included_used bigint,
        pack_used bigint, overage_units bigint, overage numeric, currency text, finalized_at timestamptz, period text);
CREATE VIEW talkmeter.usage_monthly AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, period text, first_day date,
        period_start timestamptz, period_end timestamptz, used bigint, included_used bigint, pack_used bigint, overage_units bigint);
CREATE VIEW talkmeter.usage_projection AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, period_start timestamptz, period_end timestamptz, used bigint,
            projected_used bigint, projected_overage_units
        bigint, projected_overage numeric, currency text, period text);

CREATE VIEW talkmeter.applied_policies AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, name text, policy_version integer, in_force boolean, units bigint,
        label text, effective_from timestamptz, starts_on text[], ends_on text[], idle_timeout interval, quiet_review_after interval,
        max_duration interval, turn_limit integer, charge_on text, charge_events text[], outcomes jsonb,
        final_after text, once_per text, staff_reply_blocks boolean, error_before_reply_waives boolean, exclude_prefixes text[],
        note text);
CREATE VIEW talkmeter.prices AS
    SELECT * FROM jsonb_to_recordset('[]') AS r (tenant text, kind text, name text, since timestamptz, units bigint,
        overage_rate numeric, price numeric, currency text, valid_for text, rates jsonb);

CREATE VIEW talkmeter.audit_trail AS SELECT * FROM talkmeter.audited;
CREATE VIEW talkmeter.my_alerts AS SELECT * FROM talkmeter.alerts;
CREATE VIEW talkmeter.my_audit_trail AS SELECT * FROM talkmeter.audited;
CREATE VIEW talkmeter.my_bills AS SELECT * FROM talkmeter.bills;
CREATE VIEW talkmeter.my_charges AS SELECT * FROM talkmeter.charges;
CREATE VIEW talkmeter.my_disputes AS SELECT * FROM talkmeter.disputes;
CREATE VIEW talkmeter.my_expired_packs AS SELECT * FROM talkmeter.expired_packs;
CREATE VIEW talkmeter.my_packs AS SELECT * FROM talkmeter.packs;
CREATE VIEW talkmeter.my_parts AS SELECT * FROM talkmeter.parts;
CREATE VIEW talkmeter.my_policy AS SELECT * FROM talkmeter.applied_policies;
CREATE VIEW talkmeter.my_prices AS SELECT * FROM talkmeter.prices;
CREATE VIEW talkmeter.my_reconciliations AS SELECT * FROM talkmeter.reconciliations;
CREATE VIEW talkmeter.my_uncharged AS SELECT * FROM talkmeter.uncharged;
CREATE VIEW talkmeter.my_unplanned AS SELECT * FROM talkmeter.unplanned;
CREATE VIEW talkmeter.my_usage AS SELECT * FROM talkmeter.usage;
CREATE VIEW talkmeter.my_usage_daily AS SELECT * FROM talkmeter.usage_daily;
CREATE VIEW talkmeter.my_usage_history AS SELECT * FROM talkmeter.usage_history;
CREATE VIEW talkmeter.my_usage_monthly AS SELECT * FROM talkmeter.usage_monthly;
CREATE VIEW talkmeter.my_usage_projection AS SELECT * FROM talkmeter.usage_projection;

GRANT SELECT ON ALL TABLES IN SCHEMA talkmeter TO PUBLIC;

COMMIT;
