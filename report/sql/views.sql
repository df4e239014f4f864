-- Which views may whoever is connected read: those of all tenants, or those of the own ones?

\set QUIET on
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
-- Instants go to psql and back as text.
SET LOCAL DateStyle = ISO;
SET LOCAL IntervalStyle = postgres;
SELECT EXISTS (
    SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE (n.nspname, c.relname) = ('talkmeter', 'usage')
) AS is_here \gset
\if :is_here
\else
    SELECT '{"refused": "not_installed"}';
    \q
\endif
SELECT has_schema_privilege('talkmeter', 'USAGE') AS may_look \gset
\if :may_look
\else
    SELECT '{"refused": "no_rights"}';
    \q
\endif
SELECT has_table_privilege('talkmeter.usage', 'SELECT') AS reads_all,
    has_table_privilege('talkmeter.my_usage', 'SELECT') AS reads_own \gset
\if :reads_all
    \set own ''
\elif :reads_own
    \set own my_
\else
    SELECT '{"refused": "no_rights"}';
    \q
\endif
\set alerts talkmeter. :own alerts
\set bills talkmeter. :own bills
\set disputes talkmeter. :own disputes
\set packs talkmeter. :own packs
\set parts talkmeter. :own parts
\set usage talkmeter. :own usage
\set usage_daily talkmeter. :own usage_daily
\set usage_history talkmeter. :own usage_history
\set usage_monthly talkmeter. :own usage_monthly
\set usage_projection talkmeter. :own usage_projection
