//! Do the functions that say which table a number means, and what a type means to a mapping, say what the catalog says?

use talkmeter_tests::Database;

/// What a type means, in SQL and from the catalog alone.
const CLASSES: &str = "
    CREATE FUNCTION model_of(type oid) RETURNS text LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
        WITH RECURSIVE under (oid, inner_type, kind) AS (
            SELECT t.oid, t.typbasetype, t.typtype FROM pg_type AS t WHERE t.oid = model_of.type
            UNION ALL
            SELECT t.oid, t.typbasetype, t.typtype FROM under JOIN pg_type AS t ON t.oid = under.inner_type
        )
        SELECT CASE
            WHEN u.kind = 'e' OR u.oid IN ('text'::regtype, 'varchar'::regtype) THEN 'text'
            WHEN u.oid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN 'integer'
            WHEN u.oid IN ('float4'::regtype, 'float8'::regtype) THEN 'float'
            WHEN u.oid IN ('json'::regtype, 'jsonb'::regtype) THEN 'json'
            ELSE format_type(u.oid, NULL) END
        FROM under AS u
        WHERE u.kind <> 'd'
    $$;
    CREATE SCHEMA own;
    CREATE TYPE own.mood AS ENUM ('good', 'bad');
    CREATE TYPE own.\"Pair\" AS (one text, other own.mood);
    CREATE TYPE own.text AS (one int);
    CREATE TYPE own.empty AS ENUM ();
    CREATE TYPE own.span AS RANGE (subtype = int);
    CREATE TYPE own.shell;
    CREATE DOMAIN own.name AS varchar(20);
    CREATE DOMAIN own.short_name AS own.name CHECK (length(VALUE) < 10);
    CREATE DOMAIN own.moods AS own.mood[];
    CREATE TEMPORARY TABLE uuid (id int)";

#[test]
fn every_type_means_what_the_catalog_says_whatever_the_path_is() {
    let database = Database::fresh("meanings");
    let mut session = database.connect();
    session.run(CLASSES);
    for path in ["public", "own, public, pg_catalog", "pg_temp, own, pg_catalog, public", "''"] {
        session.run(&format!("SET search_path = {path}"));
        let compared = "SELECT count(*) > 600, count(*) FILTER (WHERE talkmeter.class_of(t.oid) IS DISTINCT FROM public.model_of(t.oid))
             FROM pg_catalog.pg_type AS t";
        assert_eq!(session.line(compared), "t|0", "{path}");
    }
    assert_eq!(session.line("SELECT talkmeter.class_of(1) IS NULL, talkmeter.class_of(NULL) IS NULL"), "t|t");
    let own = "SELECT DISTINCT talkmeter.class_of(t.oid) FROM pg_catalog.pg_type AS t
         WHERE t.typnamespace = 'own'::regnamespace AND t.typtype IN ('e', 'c', 'd') ORDER BY 1";
    assert_eq!(session.lines(own), ["own.\"Pair\"", "own.mood[]", "own.text", "text"]);
}

#[test]
fn a_table_is_named_by_its_installation_and_number() {
    let database = Database::fresh("meanings");
    let mut session = database.connect();
    let compared = "SELECT DISTINCT talkmeter.origin_of(c.oid) = concat_ws('/', i.installation, c.oid)
         FROM pg_class AS c, talkmeter.installation AS i";
    assert_eq!(session.lines(compared), ["t"]);
    assert_eq!(session.line("SELECT talkmeter.origin_of(NULL) IS NULL"), "t");
}
