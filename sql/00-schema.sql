-- Where does everything of talkmeter live?
\echo Use "CREATE EXTENSION talkmeter" to load this file. \quit

-- CREATE EXTENSION has pinned it already, by the control file; said again for those who read only this.
SET LOCAL search_path TO pg_catalog, pg_temp;

-- Plain CREATE: a schema of that name that somebody else made must stop the installation, not be adopted.
CREATE SCHEMA talkmeter;
REVOKE ALL ON SCHEMA talkmeter FROM PUBLIC;
COMMENT ON SCHEMA talkmeter IS
    'Meters and bills AI-support conversations in the transaction that writes their messages';
