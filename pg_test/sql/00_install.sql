-- What does CREATE EXTENSION bring, and what may the public do with it?
CREATE EXTENSION talkmeter;

-- Everything is in the extension's own schemas, and nothing is granted to PUBLIC.
SELECT pg_catalog.pg_describe_object(d.classid, d.objid, 0) AS outside
FROM pg_catalog.pg_depend AS d
JOIN pg_catalog.pg_extension AS e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
WHERE e.extname = 'talkmeter' AND d.deptype = 'e'
    AND pg_catalog.pg_describe_object(d.classid, d.objid, 0) !~ 'talkmeter';
SELECT p.oid::regprocedure AS function_granted_to_public
FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace = 'talkmeter'::regnamespace
    AND (p.proacl IS NULL OR EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) AS a WHERE a.grantee = 0));
SELECT c.oid::regclass AS relation_granted_to_public
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace IN ('talkmeter'::regnamespace, 'talkmeter_archive'::regnamespace) AND c.relkind IN ('r', 'v')
    AND EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) AS a WHERE a.grantee = 0);

-- Every table has a primary key and is dumped, but for the one that tells a restored database from a copy; every table, column, view and function is commented.
SELECT c.oid::regclass AS table_without_primary_key
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace IN ('talkmeter'::regnamespace, 'talkmeter_archive'::regnamespace) AND c.relkind = 'r'
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary);
SELECT c.oid::regclass AS table_not_dumped
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace IN ('talkmeter'::regnamespace, 'talkmeter_archive'::regnamespace) AND c.relkind IN ('r', 'S') AND c.relname <> 'installation'
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension AS e WHERE e.extname = 'talkmeter' AND c.oid = ANY (e.extconfig));
SELECT c.oid::regclass AS relation, a.attname AS without_comment
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum >= 0 AND NOT a.attisdropped
WHERE c.relnamespace IN ('talkmeter'::regnamespace, 'talkmeter_archive'::regnamespace) AND c.relkind IN ('r', 'v')
    -- Inner views have the columns of tables.
    AND c.relname NOT IN ('billed_line', 'part', 'part_now', 'part_or_none', 'posting', 'standing_charge', 'waiting_unit')
    AND pg_catalog.col_description(c.oid, a.attnum) IS NULL;
SELECT c.oid::regclass AS relation_without_comment
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace IN ('talkmeter'::regnamespace, 'talkmeter_archive'::regnamespace) AND c.relkind IN ('r', 'v')
    AND pg_catalog.obj_description(c.oid, 'pg_class') IS NULL;
SELECT p.oid::regprocedure AS function_without_comment
FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace = 'talkmeter'::regnamespace AND pg_catalog.obj_description(p.oid, 'pg_proc') IS NULL;

-- A function with its owner's rights has a path of its own.
SELECT p.oid::regprocedure AS definer_without_path
FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace = 'talkmeter'::regnamespace AND p.prosecdef
    AND NOT 'search_path=pg_catalog, pg_temp' = ANY (p.proconfig);

-- The public surface. From PostgreSQL 17 on the types of rows are members, too.
SELECT pg_catalog.pg_describe_object(d.classid, d.objid, 0) COLLATE "C" AS member
FROM pg_catalog.pg_depend AS d
JOIN pg_catalog.pg_extension AS e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
WHERE e.extname = 'talkmeter' AND d.deptype = 'e' AND d.classid <> 'pg_type'::regclass
ORDER BY 1;

-- What is on offer.
\x on
SELECT * FROM talkmeter.policies ORDER BY name;
\x off
SELECT * FROM talkmeter.plans ORDER BY name COLLATE "C";
SELECT * FROM talkmeter.pack_offers ORDER BY size;
