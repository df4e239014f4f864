-- What does CREATE EXTENSION answer in a database whose encoding the library cannot read?
\set old :DBNAME
-- From PostgreSQL 18 on it names the script and the statement.
\set SHOW_CONTEXT never
CREATE DATABASE talkmeter_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C';
CREATE DATABASE talkmeter_latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C';

\c talkmeter_ascii
CREATE EXTENSION talkmeter;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT nspname FROM pg_namespace WHERE nspname ~ 'talkmeter';

\c talkmeter_latin
CREATE EXTENSION talkmeter;
\echo SQLSTATE :LAST_ERROR_SQLSTATE

-- What the hint makes.
CREATE DATABASE talkmeter_utf8 TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8';
\c talkmeter_utf8
CREATE EXTENSION talkmeter;
SELECT extname FROM pg_extension WHERE extname = 'talkmeter';

\c :old
DROP DATABASE talkmeter_ascii;
DROP DATABASE talkmeter_latin;
DROP DATABASE talkmeter_utf8;
