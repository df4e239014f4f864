-- Which tenants move to another server, or have come from one?

CREATE TABLE talkmeter.tenant_move (
    tenant text COLLATE "C" PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('leaving', 'left', 'expected', 'arriving', 'arrived')),
    move uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    receipt uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    by name NOT NULL DEFAULT SESSION_USER,
    exported_at timestamptz,
    came_by uuid,
    came_with uuid,
    came_at timestamptz
);
REVOKE ALL ON talkmeter.tenant_move FROM PUBLIC;
COMMENT ON TABLE talkmeter.tenant_move IS 'Tenants that leave, or have left, for another server, and those that come, or have come, from one';
COMMENT ON COLUMN talkmeter.tenant_move.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.tenant_move.state IS
    'leaving or expected: its rows wait in quarantine; left: they do for good; arrived: they are metered; arriving: within an import only';
COMMENT ON COLUMN talkmeter.tenant_move.move IS 'Names the move on both servers';
COMMENT ON COLUMN talkmeter.tenant_move.receipt IS 'Names the last export: whoever knows it has its end';
COMMENT ON COLUMN talkmeter.tenant_move.since IS 'When it came into that state';
COMMENT ON COLUMN talkmeter.tenant_move.by IS 'Who called for it: the role that logged in';
COMMENT ON COLUMN talkmeter.tenant_move.exported_at IS 'When its books were last exported; where they arrived, when those were that did';
COMMENT ON COLUMN talkmeter.tenant_move.came_by IS 'The move by which the books came here, also while they are about to leave again; null: they never did';
COMMENT ON COLUMN talkmeter.tenant_move.came_with IS 'The receipt of that';
COMMENT ON COLUMN talkmeter.tenant_move.came_at IS 'When that was exported';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.tenant_move', '');

CREATE FUNCTION talkmeter.arrives_whole() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        BEGIN
            IF EXISTS (SELECT FROM talkmeter.tenant_move AS m WHERE m.tenant = NEW.tenant AND m.state = 'arriving') THEN
                RAISE object_not_in_prerequisite_state USING
                    MESSAGE = format('the books of tenant "%s" have not come to their end', NEW.tenant),
                    HINT = 'Call talkmeter.import_tenant, which reads a document as a whole. Nothing was changed.';
            END IF;
            RETURN NULL;
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.arrives_whole() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.arrives_whole() IS 'Trigger of talkmeter.tenant_move: no transaction commits a part of an import';
CREATE CONSTRAINT TRIGGER arrives_whole AFTER UPDATE ON talkmeter.tenant_move
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.state = 'arriving') EXECUTE FUNCTION talkmeter.arrives_whole();
-- Whatever role the session plays in replication.
ALTER TABLE talkmeter.tenant_move ENABLE ALWAYS TRIGGER arrives_whole;

CREATE VIEW talkmeter.moves AS
    SELECT m.tenant, m.state, m.since, m.by, m.exported_at,
        (SELECT count(*) FROM talkmeter.quarantined AS q WHERE q.reason = 'moved' AND q.tenant = m.tenant) AS waiting
    FROM talkmeter.tenant_move AS m;
REVOKE ALL ON talkmeter.moves FROM PUBLIC;
COMMENT ON VIEW talkmeter.moves IS 'Tenants on their way between servers, and those that have gone or come';
COMMENT ON COLUMN talkmeter.moves.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.moves.state IS
    'leaving or expected: its rows wait in quarantine until its books are where they go; left: it is metered elsewhere; arrived: here';
COMMENT ON COLUMN talkmeter.moves.since IS 'When it came into that state';
COMMENT ON COLUMN talkmeter.moves.by IS 'Who called for it: the role that logged in';
COMMENT ON COLUMN talkmeter.moves.exported_at IS 'When its books were last exported; where they have arrived, when those were that did';
COMMENT ON COLUMN talkmeter.moves.waiting IS 'Rows and marks that wait in quarantine as moved';
