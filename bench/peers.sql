-- Which tables are compared: the same messages, unmetered, and metered by what one could use instead of talkmeter?
--
-- psql -v library=... (bench/floor.c, compiled) -v indexed=true|false (the index that talkmeter advises). Each peer has a
-- table of its own, message_ and its name, all with the same columns and indexes.
SET client_min_messages = error; -- talkmeter misses its index where that is left out
CREATE TABLE message_bare (
    id bigserial PRIMARY KEY, tenant_id text NOT NULL, conversation_id text NOT NULL, created_at timestamptz NOT NULL,
    sender text NOT NULL, body text);
\if :indexed
CREATE INDEX ON message_bare (tenant_id, conversation_id, created_at);
\endif
-- A sequence each: with one in common, the peers would meet at its page.
CREATE TABLE message_empty (LIKE message_bare INCLUDING ALL);
CREATE TABLE message_floor (LIKE message_bare INCLUDING ALL);
CREATE TABLE message_plpgsql (LIKE message_bare INCLUDING ALL);
CREATE TABLE message_talkmeter (LIKE message_bare INCLUDING ALL);
DO $$
DECLARE
    peer text;
BEGIN
    FOREACH peer IN ARRAY ARRAY['empty', 'floor', 'plpgsql', 'talkmeter'] LOOP
        EXECUTE format('CREATE SEQUENCE message_%1$s_id_seq OWNED BY message_%1$s.id', peer);
        EXECUTE format('ALTER TABLE message_%1$s ALTER id SET DEFAULT nextval(''message_%1$s_id_seq'')', peer);
    END LOOP;
END $$;

-- empty: a statement trigger with a transition table that does nothing.
CREATE FUNCTION bench_empty() RETURNS trigger LANGUAGE c AS :'library', 'bench_empty';
CREATE TRIGGER meter AFTER INSERT ON message_empty REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION bench_empty();

-- floor: one row of state per conversation, written as the transaction commits, in C and without SPI.
CREATE TABLE floor_state (
    tenant text COLLATE "C" NOT NULL, conversation text COLLATE "C" NOT NULL, state bytea NOT NULL,
    PRIMARY KEY (tenant, conversation)) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE FUNCTION bench_floor() RETURNS trigger LANGUAGE c AS :'library', 'bench_floor';
CREATE TRIGGER meter AFTER INSERT ON message_floor REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION bench_floor();

-- plpgsql: a row trigger as a competent engineer would write it. A session is opened by a user's message, ends after 30 idle
-- minutes and is charged at its first answer; a month has an allowance and then overage. It is less than talkmeter: late
-- messages count where they come in, nothing is corrected, and two transactions that write to several tenants can deadlock.
CREATE TABLE plpgsql_plan (
    plan text PRIMARY KEY, included bigint NOT NULL, overage_rate numeric NOT NULL, currency text NOT NULL);
INSERT INTO plpgsql_plan VALUES ('starter', 1000, 0.04, 'USD');
CREATE TABLE plpgsql_session (
    session bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant text NOT NULL, conversation text NOT NULL,
    started_at timestamptz NOT NULL, last_at timestamptz NOT NULL, ended_at timestamptz, messages bigint NOT NULL,
    replies bigint NOT NULL, charged_at timestamptz) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE UNIQUE INDEX ON plpgsql_session (tenant, conversation) WHERE ended_at IS NULL;
CREATE TABLE plpgsql_usage (
    tenant text NOT NULL, month date NOT NULL, plan text NOT NULL REFERENCES plpgsql_plan, used bigint NOT NULL,
    overage_units bigint NOT NULL, overage_amount numeric NOT NULL, PRIMARY KEY (tenant, month)) WITH (fillfactor = 50);
CREATE TABLE plpgsql_charge (
    charge bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, session bigint NOT NULL UNIQUE, tenant text NOT NULL,
    charged_at timestamptz NOT NULL, tier text NOT NULL CHECK (tier IN ('included', 'overage')), amount numeric NOT NULL,
    currency text NOT NULL);
CREATE INDEX ON plpgsql_charge (tenant, charged_at);
CREATE FUNCTION bench_plpgsql() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_reply constant boolean := NEW.sender = 'bot';
    open plpgsql_session;
    terms plpgsql_plan;
    n bigint;
    price numeric := 0;
BEGIN
    UPDATE plpgsql_session AS s
    SET last_at = greatest(s.last_at, NEW.created_at), messages = s.messages + 1, replies = s.replies + is_reply::integer,
        charged_at = COALESCE(s.charged_at, CASE WHEN is_reply THEN NEW.created_at END)
    WHERE s.tenant = NEW.tenant_id AND s.conversation = NEW.conversation_id AND s.ended_at IS NULL
        AND s.last_at >= NEW.created_at - interval '30 minutes'
    RETURNING * INTO open;
    IF NOT FOUND THEN
        IF is_reply THEN
            RETURN NULL;
        END IF;
        UPDATE plpgsql_session AS s SET ended_at = s.last_at + interval '30 minutes'
        WHERE s.tenant = NEW.tenant_id AND s.conversation = NEW.conversation_id AND s.ended_at IS NULL;
        INSERT INTO plpgsql_session (tenant, conversation, started_at, last_at, messages, replies)
        VALUES (NEW.tenant_id, NEW.conversation_id, NEW.created_at, NEW.created_at, 1, 0);
        RETURN NULL;
    END IF;
    -- The first reply charges the session.
    IF NOT is_reply OR open.replies > 1 THEN
        RETURN NULL;
    END IF;
    INSERT INTO plpgsql_usage AS u (tenant, month, plan, used, overage_units, overage_amount)
    VALUES (NEW.tenant_id, date_trunc('month', NEW.created_at, 'UTC')::date, 'starter', 1, 0, 0)
    ON CONFLICT (tenant, month) DO UPDATE SET used = u.used + 1
    RETURNING used INTO n;
    SELECT * INTO terms FROM plpgsql_plan WHERE plan = 'starter';
    IF n > terms.included THEN
        price := terms.overage_rate;
        UPDATE plpgsql_usage SET overage_units = overage_units + 1, overage_amount = overage_amount + price
        WHERE tenant = NEW.tenant_id AND month = date_trunc('month', NEW.created_at, 'UTC')::date;
    END IF;
    INSERT INTO plpgsql_charge (session, tenant, charged_at, tier, amount, currency)
    VALUES (open.session, NEW.tenant_id, NEW.created_at, CASE WHEN n > terms.included THEN 'overage' ELSE 'included' END,
        price, terms.currency);
    RETURN NULL;
END $$;
CREATE TRIGGER meter AFTER INSERT ON message_plpgsql FOR EACH ROW EXECUTE FUNCTION bench_plpgsql();

CREATE EXTENSION talkmeter;
SELECT FROM talkmeter.attach('message_talkmeter', 'agent_red', default_plan => 'agent_red/starter', mapping => '{
    "kinds": [{"when": {"sender": "user"}, "kind": "customer_message"}, {"when": {"sender": "bot"}, "kind": "ai_reply"},
              {"when": {"sender": "note"}, "kind": "note"}]}');
