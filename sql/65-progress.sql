-- How far has long work come?

CREATE FUNCTION talkmeter.working()
    RETURNS TABLE (pid integer, database name, usename name, work text, done bigint, total bigint, unit text,
        started_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT a.pid, a.datname, a.usename, m.found[1], m.found[2]::bigint, m.found[3]::bigint, m.found[4], a.query_start
        FROM pg_stat_activity AS a
        CROSS JOIN LATERAL regexp_match(a.query, '^/\* talkmeter\.(\w+): (\d{1,18}) of (\d{1,18}) ([a-z ]+) \*/') AS m (found)
        WHERE a.datname = current_database() AND a.state = 'active' AND m.found IS NOT NULL
            -- Anybody can write such a comment; only our work locks the view so.
            AND EXISTS (
                SELECT FROM pg_locks AS l
                WHERE l.pid = a.pid AND l.locktype = 'relation' AND l.relation = to_regclass('talkmeter.progress')::oid
                    AND l.database = a.datid AND l.mode = 'RowShareLock' AND l.granted)
    $$;
REVOKE ALL ON FUNCTION talkmeter.working() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.working() IS 'The rows of talkmeter.progress';

CREATE VIEW talkmeter.progress AS
    SELECT w.pid, w.database, w.usename, w.work, w.done, w.total, w.unit, w.started_at
    FROM talkmeter.working() AS w;
REVOKE ALL ON talkmeter.progress FROM PUBLIC;
COMMENT ON VIEW talkmeter.progress IS
    'Long work of talkmeter that is going on in this database: which function, how much of it is done, and since when';
COMMENT ON COLUMN talkmeter.progress.pid IS 'The server process';
COMMENT ON COLUMN talkmeter.progress.database IS 'The database, always this one';
COMMENT ON COLUMN talkmeter.progress.usename IS 'Who called it';
COMMENT ON COLUMN talkmeter.progress.work IS 'archive, backfill, gaps, reconcile, retry_quarantine, simulate or verify';
COMMENT ON COLUMN talkmeter.progress.done IS 'How many are done';
COMMENT ON COLUMN talkmeter.progress.total IS 'How many there are in all';
COMMENT ON COLUMN talkmeter.progress.unit IS 'What is counted';
COMMENT ON COLUMN talkmeter.progress.started_at IS 'When the statement began';
