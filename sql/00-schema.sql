-- In which databases may talkmeter be, and where does everything of it live?
\echo Use "CREATE EXTENSION talkmeter" to load this file. \quit

-- CREATE EXTENSION has pinned it already, by the control file; said again for those who read only this.
SET LOCAL search_path TO pg_catalog, pg_temp;

-- The library takes every text for UTF8. No database changes its encoding later, so nothing else asks for it.
DO $$
BEGIN
    IF pg_catalog.current_setting('server_encoding') <> 'UTF8' THEN
        RAISE feature_not_supported USING
            MESSAGE = 'talkmeter needs a database whose encoding is UTF8',
            DETAIL = pg_catalog.format('That of this one is %s, and cannot be changed.', pg_catalog.current_setting('server_encoding')),
            HINT = 'Make one: createdb -T template0 -E UTF8 --locale=C.UTF-8 NAME';
    END IF;
END
$$;

-- A schema of that name that somebody else made must stop the installation, not be adopted. Most likely it is the stub's.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'talkmeter') THEN
        RAISE duplicate_schema USING
            MESSAGE = 'schema "talkmeter" already exists',
            HINT = 'If it is that of the development stub: DROP SCHEMA talkmeter CASCADE, then try again.';
    END IF;
END
$$;
CREATE SCHEMA talkmeter;
REVOKE ALL ON SCHEMA talkmeter FROM PUBLIC;
COMMENT ON SCHEMA talkmeter IS
    'Meters and bills AI-support conversations in the transaction that writes their messages';
