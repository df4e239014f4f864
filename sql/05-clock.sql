-- Which time is it to the meter?

CREATE VIEW talkmeter.clock AS
    SELECT pg_catalog.statement_timestamp() + o.clock_offset AS now, o.clock_offset
    FROM (
        -- In seconds alone, so that no zone's day is longer than another. Unset in a session that has not used the library;
        -- whoever sets it before that fools nobody but himself.
        SELECT pg_catalog.make_interval(secs => COALESCE(EXTRACT(epoch FROM
            NULLIF(pg_catalog.current_setting('talkmeter.clock_offset', true), '')::interval), 0)::float8) AS clock_offset
    ) AS o;
REVOKE ALL ON talkmeter.clock FROM PUBLIC;
COMMENT ON VIEW talkmeter.clock IS
    'The time by which messages are metered: that of the server, but for talkmeter.clock_offset. All views of what has passed by now read it';
COMMENT ON COLUMN talkmeter.clock.now IS 'The time of the statement, by that clock';
COMMENT ON COLUMN talkmeter.clock.clock_offset IS 'How far it is ahead of the server''s: talkmeter.clock_offset';
