-- Where do the parts, charges and marks of old periods go? Into tables that inherit: whoever reads the first reads both.

CREATE SCHEMA talkmeter_archive;
COMMENT ON SCHEMA talkmeter_archive IS
    'What talkmeter.archive has moved aside of finalized periods; the tables of schema talkmeter show it too';

CREATE TABLE talkmeter_archive.ended_part (
    PRIMARY KEY (tenant, conversation, part)
) INHERITS (talkmeter.ended_part);
REVOKE ALL ON talkmeter_archive.ended_part FROM PUBLIC;
COMMENT ON TABLE talkmeter_archive.ended_part IS 'Parts that ended in finalized periods, moved here by archive';
SELECT pg_catalog.pg_extension_config_dump('talkmeter_archive.ended_part', '');

CREATE TABLE talkmeter_archive.marked (
    PRIMARY KEY (tenant, conversation, mark)
) INHERITS (talkmeter.marked);
REVOKE ALL ON talkmeter_archive.marked FROM PUBLIC;
COMMENT ON TABLE talkmeter_archive.marked IS 'Marks of finalized periods, moved here by archive';
SELECT pg_catalog.pg_extension_config_dump('talkmeter_archive.marked', '');

-- The same indexes as those of talkmeter.charge: a report finds its rows in either. No part of a credit that is here is charged
-- before its conversation has been fetched back.
CREATE TABLE talkmeter_archive.charge (
    PRIMARY KEY (tenant, charge_id)
) INHERITS (talkmeter.charge);
REVOKE ALL ON talkmeter_archive.charge FROM PUBLIC;
CREATE INDEX charge_part ON talkmeter_archive.charge (tenant, conversation, part);
CREATE INDEX charge_posted ON talkmeter_archive.charge (tenant, posted_period_start);
CREATE UNIQUE INDEX charge_reverses ON talkmeter_archive.charge (tenant, reverses) WHERE reverses IS NOT NULL;
CREATE INDEX charge_late ON talkmeter_archive.charge (posted_at)
    WHERE reverses IS NULL AND posted_at - charged_at > interval '35 days';
COMMENT ON TABLE talkmeter_archive.charge IS 'Entries of the ledger that finalized statements list, moved here by archive';
SELECT pg_catalog.pg_extension_config_dump('talkmeter_archive.charge', '');

-- A column means here what it means there.
DO $$
    DECLARE
        own record;
    BEGIN
        FOR own IN
            SELECT h.inhrelid::regclass AS heir, a.attname, pg_catalog.col_description(a.attrelid, a.attnum) AS comment
            FROM pg_catalog.pg_inherits AS h
            JOIN pg_catalog.pg_class AS c ON c.oid = h.inhrelid AND c.relnamespace = 'talkmeter_archive'::regnamespace
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = h.inhparent AND a.attnum > 0
        LOOP
            EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', own.heir, own.attname, own.comment);
        END LOOP;
    END
$$;

CREATE PROCEDURE talkmeter.archive(before timestamptz, batch integer DEFAULT 500)
    LANGUAGE c AS 'MODULE_PATHNAME', 'archive';
REVOKE ALL ON PROCEDURE talkmeter.archive(timestamptz, integer) FROM PUBLIC;
COMMENT ON PROCEDURE talkmeter.archive(timestamptz, integer) IS
    'Moves the ended parts, charges and marks of finalized periods that ended by then into schema talkmeter_archive; every view and function still shows them. Commits after so many conversations, and passes over those that somebody has locked. Not within a transaction';
