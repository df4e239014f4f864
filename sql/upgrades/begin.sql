-- What does every upgrade script begin with? `make build` puts it before each.
\echo Use "ALTER EXTENSION talkmeter UPDATE" to load this file. \quit

-- ALTER EXTENSION has pinned it already, by the control file; said again for those who read only this.
SET LOCAL search_path TO pg_catalog, pg_temp;

