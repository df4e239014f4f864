//! What is an extension, object by object? All that its members are, as text, so that two databases can be compared.

use crate::Session;
use std::collections::BTreeSet;

/// Every fact of every member, one a line, in an order that does not depend on when it was made.
pub fn inventory(session: &mut Session) -> Vec<String> {
    let facts =
        [MEMBERS, RELATIONS, COLUMNS, ON_RELATIONS, FUNCTIONS, TYPES, OTHERS, RIGHTS, EXTENSION].join("\nUNION ALL\n");
    // Names are written in full where nothing is found by its name alone.
    let asked = format!("SET LOCAL search_path = ''; {OF_THE_EXTENSION} {facts} ORDER BY 1");
    let found = session.lines(&asked);
    assert!(found.len() > 500, "no inventory: {found:?}");
    found
}

/// What is only in the first, and what is only in the second.
pub fn differences(first: &[String], second: &[String]) -> Vec<String> {
    let [first, second] = [first, second].map(|lines| lines.iter().collect::<BTreeSet<_>>());
    let only = |sign: char, of: &BTreeSet<&String>, other: &BTreeSet<&String>| -> Vec<String> {
        of.difference(other).map(|line| format!("{sign} {line}")).collect()
    };
    [only('-', &first, &second), only('+', &second, &first)].concat()
}

/// `member`: the objects that belong to the extension; `own`: its relations.
const OF_THE_EXTENSION: &str = "
    WITH member AS (
        SELECT d.classid, d.objid, i.type, i.identity
        FROM pg_depend AS d
        JOIN pg_extension AS e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
        CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) AS i
        WHERE e.extname = 'talkmeter' AND d.deptype = 'e'
    ),
    own AS (
        SELECT c.*, m.identity FROM member AS m JOIN pg_class AS c ON c.oid = m.objid WHERE m.classid = 'pg_class'::regclass
    )";

const MEMBERS: &str = "
    SELECT format('%s %s: a member, comment %L', m.type, m.identity, d.description)
    FROM member AS m
    LEFT JOIN pg_description AS d ON d.classoid = m.classid AND d.objoid = m.objid AND d.objsubid = 0";

const RELATIONS: &str = "
    SELECT format('relation %s: kind %s %s, owner %s, method %s, options %s, of its toast %s, row security %s %s, replica identity %s, parents %s',
        o.identity, o.relkind, o.relpersistence, o.relowner::regrole, a.amname, o.reloptions, t.reloptions, o.relrowsecurity,
        o.relforcerowsecurity, o.relreplident,
        (SELECT string_agg(i.inhparent::regclass::text, ' ' ORDER BY i.inhseqno) FROM pg_inherits AS i WHERE i.inhrelid = o.oid))
    FROM own AS o
    LEFT JOIN pg_am AS a ON a.oid = o.relam
    LEFT JOIN pg_class AS t ON t.oid = o.reltoastrelid
    UNION ALL
    SELECT format('view %s: %s', o.identity, pg_get_viewdef(o.oid)) FROM own AS o WHERE o.relkind IN ('v', 'm')
    UNION ALL
    SELECT format('sequence %s: %s from %s by %s within %s %s, cache %s, cycle %s', o.identity, s.seqtypid::regtype, s.seqstart,
        s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle)
    FROM own AS o JOIN pg_sequence AS s ON s.seqrelid = o.oid";

/// By number, because the library finds them by it. Of the options of a column those that somebody can set: a server may note
/// more of its own there.
const COLUMNS: &str = "
    SELECT format('column %s of %s: %s %s, not null %s, default %s, generated %L, identity %L, collation %s, storage %s %L, ' ||
            'target %s %s, inherited %s %s, comment %L',
        a.attnum, o.identity, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
        a.attgenerated, a.attidentity, a.attcollation::regcollation, a.attstorage, a.attcompression, COALESCE(a.attstattarget, -1),
        (SELECT string_agg(o, ' ' ORDER BY o) FROM unnest(a.attoptions) AS o WHERE starts_with(o, 'n_distinct')),
        a.attislocal, a.attinhcount, col_description(o.oid, a.attnum))
    FROM own AS o
    JOIN pg_attribute AS a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef AS d ON d.adrelid = o.oid AND d.adnum = a.attnum";

const ON_RELATIONS: &str = "
    SELECT format('constraint %s of %s: %s, validated %s, comment %L', c.conname, o.identity, pg_get_constraintdef(c.oid), c.convalidated,
        obj_description(c.oid, 'pg_constraint'))
    FROM own AS o JOIN pg_constraint AS c ON c.conrelid = o.oid
    UNION ALL
    SELECT format('index of %s: %s, valid %s, primary %s, clustered %s, identity %s, options %s, comment %L', o.identity,
        pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisprimary, i.indisclustered, i.indisreplident, c.reloptions,
        obj_description(c.oid, 'pg_class'))
    FROM own AS o JOIN pg_index AS i ON i.indrelid = o.oid JOIN pg_class AS c ON c.oid = i.indexrelid
    UNION ALL
    SELECT format('trigger of %s: %s, enabled %s, comment %L', o.identity, pg_get_triggerdef(t.oid), t.tgenabled,
        obj_description(t.oid, 'pg_trigger'))
    FROM own AS o JOIN pg_trigger AS t ON t.tgrelid = o.oid AND NOT t.tgisinternal
    UNION ALL
    SELECT format('policy %s of %s: for %s, permissive %s, roles %s, using %s, check %s', p.polname, o.identity, p.polcmd, p.polpermissive,
        p.polroles::regrole[], pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
    FROM own AS o JOIN pg_policy AS p ON p.polrelid = o.oid
    UNION ALL
    SELECT format('rule of %s: %s, enabled %s', o.identity, pg_get_ruledef(r.oid), r.ev_enabled)
    FROM own AS o JOIN pg_rewrite AS r ON r.ev_class = o.oid AND r.rulename <> '_RETURN'
    UNION ALL
    SELECT format('statistics of %s: %s', o.identity, pg_get_statisticsobjdef(s.oid))
    FROM own AS o JOIN pg_statistic_ext AS s ON s.stxrelid = o.oid";

const FUNCTIONS: &str = "
    SELECT format('function %s: owner %s, %s', m.identity, p.proowner::regrole, pg_get_functiondef(p.oid))
    FROM member AS m JOIN pg_proc AS p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass AND p.prokind <> 'a'
    UNION ALL
    SELECT format('aggregate %s: owner %s, volatile %s, parallel %s, %s', m.identity, p.proowner::regrole, p.provolatile, p.proparallel, a)
    FROM member AS m
    JOIN pg_proc AS p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass
    CROSS JOIN LATERAL (
        SELECT a.aggkind, a.aggnumdirectargs, a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn,
            a.aggminvtransfn, a.aggmfinalfn, a.aggfinalextra, a.aggsortop::regoperator, a.aggtranstype::regtype, a.agginitval
        FROM pg_aggregate AS a WHERE a.aggfnoid = p.oid
    ) AS a";

const TYPES: &str = "
    SELECT format('type %s: %s %s, owner %s, %s %s %s %s, base %s, not null %s, default %s, labels %s, constraints %s, columns %s', m.identity,
        t.typtype, t.typcategory, t.typowner::regrole, t.typinput, t.typoutput, t.typlen, t.typstorage, t.typbasetype::regtype,
        t.typnotnull, t.typdefault,
        (SELECT string_agg(e.enumlabel, ' ' ORDER BY e.enumsortorder) FROM pg_enum AS e WHERE e.enumtypid = t.oid),
        (SELECT string_agg(pg_get_constraintdef(c.oid), ' ' ORDER BY c.conname) FROM pg_constraint AS c WHERE c.contypid = t.oid),
        (SELECT string_agg(format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
            FROM pg_attribute AS a WHERE a.attrelid = t.typrelid AND NOT a.attisdropped AND a.attnum > 0))
    FROM member AS m JOIN pg_type AS t ON t.oid = m.objid AND m.classid = 'pg_type'::regclass";

const OTHERS: &str = "
    SELECT format('cast %s: %s, %s %s', m.identity, c.castfunc::regprocedure, c.castcontext, c.castmethod)
    FROM member AS m JOIN pg_cast AS c ON c.oid = m.objid AND m.classid = 'pg_cast'::regclass
    UNION ALL
    SELECT format('operator %s: %s, restrict %s, join %s', m.identity, o.oprcode, o.oprrest, o.oprjoin)
    FROM member AS m JOIN pg_operator AS o ON o.oid = m.objid AND m.classid = 'pg_operator'::regclass
    UNION ALL
    SELECT format('event trigger %s: on %s, %s, enabled %s, tags %s, owner %s', m.identity, e.evtevent, e.evtfoid::regprocedure,
        e.evtenabled, e.evttags, e.evtowner::regrole)
    FROM member AS m JOIN pg_event_trigger AS e ON e.oid = m.objid AND m.classid = 'pg_event_trigger'::regclass
    UNION ALL
    SELECT format('schema %s: owner %s', m.identity, n.nspowner::regrole)
    FROM member AS m JOIN pg_namespace AS n ON n.oid = m.objid AND m.classid = 'pg_namespace'::regclass";

/// With those that the server has as the extension's own: a dump writes only what differs from them.
const RIGHTS: &str = "
    SELECT format('rights on %s%s: %s', g.identity, '.' || g.part, (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(g.acl) AS a))
    FROM (
        SELECT o.identity, NULL, o.relacl FROM own AS o
        UNION ALL
        SELECT o.identity, a.attname, a.attacl
        FROM own AS o JOIN pg_attribute AS a ON a.attrelid = o.oid AND a.attacl IS NOT NULL AND NOT a.attisdropped
        UNION ALL
        SELECT m.identity, NULL, p.proacl FROM member AS m JOIN pg_proc AS p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass
        UNION ALL
        SELECT m.identity, NULL, t.typacl FROM member AS m JOIN pg_type AS t ON t.oid = m.objid AND m.classid = 'pg_type'::regclass
        UNION ALL
        SELECT m.identity, NULL, n.nspacl FROM member AS m JOIN pg_namespace AS n ON n.oid = m.objid AND m.classid = 'pg_namespace'::regclass
        UNION ALL
        SELECT m.identity, 'default of ' || d.defaclobjtype::text || ' for ' || d.defaclrole::regrole::text, d.defaclacl
        FROM member AS m JOIN pg_default_acl AS d ON d.defaclnamespace = m.objid AND m.classid = 'pg_namespace'::regclass
        UNION ALL
        SELECT m.identity, format('%s at install, %s', i.objsubid, i.privtype), i.initprivs
        FROM member AS m JOIN pg_init_privs AS i ON i.classoid = m.classid AND i.objoid = m.objid
    ) AS g (identity, part, acl)";

const EXTENSION: &str = "
    SELECT format('extension: version %s, schema %s, owner %s, relocatable %s, comment %L', e.extversion, e.extnamespace::regnamespace,
        e.extowner::regrole, e.extrelocatable, obj_description(e.oid, 'pg_extension'))
    FROM pg_extension AS e WHERE e.extname = 'talkmeter'
    UNION ALL
    SELECT format('dumped: %s where %L', c.relation::regclass, c.condition)
    FROM pg_extension AS e CROSS JOIN LATERAL unnest(e.extconfig, e.extcondition) AS c (relation, condition)
    WHERE e.extname = 'talkmeter'";
