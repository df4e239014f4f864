-- Who changed what bills depend on, when, and how?

-- Append-only, like the ledger.
CREATE TABLE talkmeter.journaled (
    entry uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    by name NOT NULL DEFAULT SESSION_USER,
    transaction xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    call text NOT NULL,
    tenant text COLLATE "C",
    arguments jsonb NOT NULL,
    note text
);
REVOKE ALL ON talkmeter.journaled FROM PUBLIC;
CREATE INDEX journaled_at ON talkmeter.journaled (at);
COMMENT ON TABLE talkmeter.journaled IS 'Calls that changed money, definitions or rights; read them through the view journal';
COMMENT ON COLUMN talkmeter.journaled.entry IS 'Names the entry';
COMMENT ON COLUMN talkmeter.journaled.at IS 'When it was called';
COMMENT ON COLUMN talkmeter.journaled.by IS 'Who called it: the role that logged in';
COMMENT ON COLUMN talkmeter.journaled.transaction IS 'The transaction, by which entries that belong together are found';
COMMENT ON COLUMN talkmeter.journaled.call IS
    'The function, or the table that was changed by hand';
COMMENT ON COLUMN talkmeter.journaled.tenant IS 'The merchant concerned; null: all';
COMMENT ON COLUMN talkmeter.journaled.arguments IS
    'What it was called with, what came of it, and under "replaced" what was there before';
COMMENT ON COLUMN talkmeter.journaled.note IS 'What was said about it';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.journaled', '');

CREATE VIEW talkmeter.journal AS
    SELECT j.at, j.by, j.call, j.tenant, j.arguments, j.note, j.transaction
    FROM talkmeter.journaled AS j;
REVOKE ALL ON talkmeter.journal FROM PUBLIC;
COMMENT ON VIEW talkmeter.journal IS
    'Every call that changed money, definitions or rights, and every change by hand of holidays and threshold';
COMMENT ON COLUMN talkmeter.journal.at IS 'When it was called';
COMMENT ON COLUMN talkmeter.journal.by IS 'Who called it: the role that logged in';
COMMENT ON COLUMN talkmeter.journal.call IS 'The function; holidays or threshold for a change by hand';
COMMENT ON COLUMN talkmeter.journal.tenant IS 'The merchant concerned; null: all';
COMMENT ON COLUMN talkmeter.journal.arguments IS
    'What it was called with and what came of it. replaced holds what was there before and is gone';
COMMENT ON COLUMN talkmeter.journal.note IS 'What was said about it: the note of a credit, the reason of a dispute';
COMMENT ON COLUMN talkmeter.journal.transaction IS 'The transaction, on the server that wrote it: entries of one belong together';

CREATE FUNCTION talkmeter.refuse_journal_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
        BEGIN
            RAISE EXCEPTION 'the journal is never changed'
                USING ERRCODE = 'object_not_in_prerequisite_state',
                    DETAIL = format('%s on talkmeter.journaled was refused.', TG_OP),
                    HINT = 'What is wrong in it stays, and is put right by what is done next.';
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.refuse_journal_change() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.refuse_journal_change() IS 'Trigger of talkmeter.journaled: nothing in it is changed or removed';
CREATE TRIGGER refuse_journal_change BEFORE UPDATE OR DELETE OR TRUNCATE ON talkmeter.journaled
    FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.refuse_journal_change();

CREATE FUNCTION talkmeter.journal_row() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        BEGIN
            -- A restore brings the journal of these rows along. Only a superuser restores, and only one is believed.
            IF NOT current_setting('check_function_bodies')::boolean
                AND (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = SESSION_USER) THEN
                RETURN NULL;
            END IF;
            INSERT INTO talkmeter.journaled (call, arguments)
            VALUES (TG_TABLE_NAME, jsonb_strip_nulls(jsonb_build_object('operation', lower(TG_OP),
                'replaced', CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN to_jsonb(OLD) END,
                'row', CASE WHEN TG_OP IN ('INSERT', 'UPDATE') THEN to_jsonb(NEW) END)));
            RETURN NULL;
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.journal_row() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.journal_row() IS 'Trigger of the tables that are filled by hand: writes the journal';
