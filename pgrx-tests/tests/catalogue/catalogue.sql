WITH schema AS (
    SELECT n.oid, n.nspname AS name, n.nspowner AS owner FROM pg_namespace n
    WHERE n.nspname IN ('plimsoll', 'plimsoll_open')
),
-- Rights of others than the owner: grantee=privileges, each privilege that may be passed on with a star.
rights AS (
    SELECT o.kind, o.oid, o.column_number, string_agg(g.line, ' ' ORDER BY g.line COLLATE "C") AS line
    FROM (
        SELECT 'function' AS kind, oid, 0 AS column_number, COALESCE(proacl, acldefault('f', proowner)) AS acl FROM pg_proc
        UNION ALL
        SELECT 'relation', oid, 0, COALESCE(relacl, acldefault((CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", relowner))
        FROM pg_class
        UNION ALL SELECT 'column', attrelid, attnum, attacl FROM pg_attribute
        UNION ALL SELECT 'type', oid, 0, COALESCE(typacl, acldefault('T', typowner)) FROM pg_type
        UNION ALL SELECT 'schema', oid, 0, COALESCE(nspacl, acldefault('n', nspowner)) FROM pg_namespace
    ) o, LATERAL (
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END || '='
            || string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, ',' ORDER BY a.privilege_type)
        FROM aclexplode(o.acl) a WHERE a.grantee <> (SELECT DISTINCT owner FROM schema)
        GROUP BY a.grantee
    ) g (line)
    GROUP BY 1, 2, 3
),
described AS (
    SELECT 'pg_proc'::regclass AS class, p.oid,
        concat_ws(' | ', 'function ' || p.oid::regprocedure, l.lanname,
            CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END,
            CASE p.proparallel WHEN 's' THEN 'parallel safe' WHEN 'r' THEN 'parallel restricted' ELSE 'parallel unsafe' END,
            CASE WHEN p.proisstrict THEN 'strict' END,
            CASE WHEN p.prosecdef THEN 'SECURITY DEFINER' END,
            CASE WHEN p.proleakproof THEN 'LEAKPROOF' END,
            array_to_string(p.proconfig, ', '),
            CASE WHEN p.proowner = (SELECT DISTINCT owner FROM schema) THEN 'owner' ELSE 'owner ' || p.proowner::regrole END,
            (SELECT line FROM rights r WHERE r.kind = 'function' AND r.oid = p.oid)) AS line
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE p.pronamespace IN (SELECT oid FROM schema)
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid,
        concat_ws(' | ',
            CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' WHEN 'i' THEN 'index'
                ELSE 'relation of kind ' || c.relkind::text END || ' ' || c.relname,
            CASE WHEN c.relkind = 'i' THEN replace(pg_get_indexdef(c.oid), 'plimsoll.', '') END,
            CASE WHEN c.relkind = 'r' THEN (
                SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
                    || CASE WHEN a.attstattarget IS DISTINCT FROM 0 THEN ' sampled' ELSE '' END
                    || COALESCE(' ' || (SELECT line FROM rights r
                        WHERE r.kind = 'column' AND r.oid = a.attrelid AND r.column_number = a.attnum), ''), ', ' ORDER BY a.attnum)
                FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) END,
            CASE WHEN c.relpersistence <> 'p' THEN 'persistence ' || c.relpersistence::text END,
            CASE WHEN c.relrowsecurity THEN 'row security' END,
            array_to_string(c.reloptions, ', '),
            (SELECT string_agg('trigger ' || t.tgname, ', ' ORDER BY t.tgname) FROM pg_trigger t
                WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
            (SELECT string_agg('policy ' || p.polname, ', ' ORDER BY p.polname) FROM pg_policy p WHERE p.polrelid = c.oid),
            (SELECT string_agg('rule ' || w.rulename, ', ' ORDER BY w.rulename) FROM pg_rewrite w
                WHERE w.ev_class = c.oid AND w.rulename <> '_RETURN'),
            CASE WHEN c.relowner = (SELECT DISTINCT owner FROM schema) THEN 'owner' ELSE 'owner ' || c.relowner::regrole END,
            (SELECT line FROM rights r WHERE r.kind = 'relation' AND r.oid = c.oid AND c.relkind <> 'i'))
    FROM pg_class c WHERE c.relnamespace IN (SELECT oid FROM schema)
    UNION ALL
    -- An array's rights are those of its elements.
    SELECT 'pg_type'::regclass, t.oid,
        concat_ws(' | ', 'type ' || t.typname,
            CASE t.typtype WHEN 'c' THEN 'row type' ELSE 'of kind ' || t.typtype::text END,
            CASE WHEN t.typowner = (SELECT DISTINCT owner FROM schema) THEN 'owner' ELSE 'owner ' || t.typowner::regrole END,
            (SELECT line FROM rights r WHERE r.kind = 'type' AND r.oid = t.oid))
    FROM pg_type t
    WHERE t.typnamespace IN (SELECT oid FROM schema) AND t.typcategory <> 'A'
    UNION ALL
    SELECT 'pg_event_trigger'::regclass, e.oid,
        concat_ws(' | ', 'event trigger ' || e.evtname, e.evtevent, array_to_string(e.evttags, ', '),
            e.evtfoid::regprocedure::text, CASE e.evtenabled WHEN 'O' THEN 'enabled' ELSE 'enabled: ' || e.evtenabled::text END,
            CASE WHEN e.evtowner = (SELECT DISTINCT owner FROM schema) THEN 'owner' ELSE 'owner ' || e.evtowner::regrole END)
    FROM pg_event_trigger e
    UNION ALL
    SELECT 'pg_namespace'::regclass, s.oid,
        concat_ws(' | ', 'schema ' || s.name, (SELECT line FROM rights r WHERE r.kind = 'schema' AND r.oid = s.oid))
    FROM schema s
    UNION ALL
    SELECT 'pg_default_acl'::regclass, d.oid, concat_ws(' | ', 'default rights', d.defaclobjtype, d.defaclacl::text)
    FROM pg_default_acl d
    UNION ALL
    SELECT 'pg_authid'::regclass, a.oid, concat_ws(' | ', 'role ' || a.rolname, CASE WHEN a.rolcanlogin THEN 'LOGIN' END,
        CASE WHEN a.rolsuper THEN 'SUPERUSER' END, CASE WHEN a.rolinherit THEN 'inherit' END,
        CASE WHEN a.rolcreaterole OR a.rolcreatedb OR a.rolreplication OR a.rolbypassrls THEN 'ATTRIBUTES' END)
    FROM pg_roles a WHERE a.rolname LIKE 'plimsoll%'
    UNION ALL
    -- Whatever else the extension has.
    SELECT d.classid, d.objid, 'other ' || pg_describe_object(d.classid, d.objid, d.objsubid)
    FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    WHERE e.extname = 'plimsoll' AND d.deptype = 'e' AND d.classid NOT IN ('pg_proc'::regclass, 'pg_class'::regclass,
        'pg_event_trigger'::regclass, 'pg_namespace'::regclass, 'pg_type'::regclass)
    UNION ALL
    -- Members that lie elsewhere, and objects in the schema that are no members.
    SELECT d.classid, d.objid, 'outside its schema: ' || pg_describe_object(d.classid, d.objid, d.objsubid)
    FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    WHERE e.extname = 'plimsoll' AND d.deptype = 'e' AND d.classid IN ('pg_proc'::regclass, 'pg_class'::regclass)
        AND (pg_identify_object(d.classid, d.objid, 0)).schema NOT IN ('plimsoll', 'plimsoll_open')
    UNION ALL
    SELECT 'pg_operator'::regclass, o.oid, 'operator ' || o.oid::regoperator
    FROM pg_operator o WHERE o.oprnamespace IN (SELECT oid FROM schema)
)
SELECT replace(line, 'plimsoll.', '') AS line FROM described ORDER BY line COLLATE "C"
