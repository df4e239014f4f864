-- How does what was never counted come to be metered?

CREATE PROCEDURE talkmeter.backfill(source regclass, from_time timestamptz, to_time timestamptz,
        charge boolean DEFAULT true, batch integer DEFAULT 500)
    LANGUAGE c AS 'MODULE_PATHNAME', 'backfill';
REVOKE ALL ON PROCEDURE talkmeter.backfill(regclass, timestamptz, timestamptz, boolean, integer) FROM PUBLIC;
COMMENT ON PROCEDURE talkmeter.backfill(regclass, timestamptz, timestamptz, boolean, integer) IS
    'Meters the rows of an attached table of from_time or later, and before to_time, that were never counted; commits after so many conversations, and goes on where it was interrupted. With charge => false: counts parts, and leaves their units in uncharged. Not within a transaction. Needs ownership of the table';

CREATE FUNCTION talkmeter.gaps(source regclass)
    RETURNS TABLE (from_time timestamptz, to_time timestamptz, because text, events bigint)
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'gaps_wrapper';
REVOKE ALL ON FUNCTION talkmeter.gaps(regclass) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.gaps(regclass) IS
    'Spans of time in which rows of an attached table are events by its mapping and were never counted: what backfill would meter. Reads the whole table. Needs ownership of the table';
