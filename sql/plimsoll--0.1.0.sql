-- Plimsoll 0.1.0. Written by hand: every object, privilege and setting of the extension is in this file.
\echo Use "CREATE EXTENSION plimsoll" to load this file. \quit

-- ---------------------------------------------------------------------------------------------------
-- Group roles. Roles belong to the whole cluster, so another of its databases may have made them.
-- ---------------------------------------------------------------------------------------------------

DO $$
DECLARE
    wanted pg_catalog.record;
    role oid;
    ours boolean;
    unlike_ours text;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('plimsoll_admin', 'Plimsoll: manages tables and databases'),
            ('plimsoll_agent', 'Plimsoll: sends and checks the rows of the databases granted to it'),
            ('plimsoll_reader', 'Plimsoll: reads reports on the databases granted to it')) AS roles (name, purpose)
    LOOP
        SELECT r.oid, COALESCE(pg_catalog.shobj_description(r.oid, 'pg_authid') OPERATOR(pg_catalog.=) wanted.purpose, false)
            INTO role, ours
        FROM pg_catalog.pg_authid r WHERE r.rolname OPERATOR(pg_catalog.=) wanted.name::pg_catalog.name;
        IF NOT FOUND THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted.name);
        ELSE
            -- Of the admins' role also who could make others its members: a comment is soon forged.
            SELECT pg_catalog.concat_ws('; ',
                CASE WHEN r.rolcanlogin THEN 'it may log in' END,
                CASE WHEN r.rolpassword IS NOT NULL THEN 'it has a password' END,
                CASE WHEN r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls
                    THEN 'it has attributes such as CREATEROLE' END,
                (SELECT 'it is a member of ' OPERATOR(pg_catalog.||) pg_catalog.string_agg(g.rolname, ', ')
                 FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_authid g ON g.oid OPERATOR(pg_catalog.=) m.roleid
                 WHERE m.member OPERATOR(pg_catalog.=) r.oid),
                (SELECT 'it was not made by Plimsoll and has the members '
                     OPERATOR(pg_catalog.||) pg_catalog.string_agg(g.rolname, ', ')
                 FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_authid g ON g.oid OPERATOR(pg_catalog.=) m.member
                 WHERE m.roleid OPERATOR(pg_catalog.=) r.oid AND NOT ours),
                (SELECT 'it has members that no superuser made so, or that may make others so: '
                     OPERATOR(pg_catalog.||) pg_catalog.string_agg(g.rolname, ', ')
                 FROM pg_catalog.pg_auth_members m
                 JOIN pg_catalog.pg_authid g ON g.oid OPERATOR(pg_catalog.=) m.member AND NOT g.rolsuper
                 LEFT JOIN pg_catalog.pg_authid by ON by.oid OPERATOR(pg_catalog.=) m.grantor
                 WHERE m.roleid OPERATOR(pg_catalog.=) r.oid AND ours
                     AND wanted.name OPERATOR(pg_catalog.=) 'plimsoll_admin'
                     AND (m.admin_option OR by.rolsuper IS NOT TRUE)),
                CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s
                        WHERE s.setrole OPERATOR(pg_catalog.=) r.oid)
                    THEN 'it has settings of its own (ALTER ROLE ... SET)' END,
                CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_shdepend d
                        WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_authid'::pg_catalog.regclass
                            AND d.refobjid OPERATOR(pg_catalog.=) r.oid AND d.deptype OPERATOR(pg_catalog.=) 'o')
                    THEN 'it owns objects' END)
            INTO unlike_ours
            FROM pg_catalog.pg_authid r WHERE r.oid OPERATOR(pg_catalog.=) role;
            IF unlike_ours OPERATOR(pg_catalog.<>) ''
                AND NOT COALESCE(
                    pg_catalog.current_setting('plimsoll.adopt_roles', true) OPERATOR(pg_catalog.=) 'on', false)
            THEN
                RAISE EXCEPTION USING
                    ERRCODE = 'duplicate_object',
                    MESSAGE = pg_catalog.format('role "%s" exists already, not as Plimsoll makes it', wanted.name),
                    DETAIL = pg_catalog.format('What was done to it would have effect here: %s.', unlike_ours),
                    HINT = 'Undo that, rename the role or drop it; or SET plimsoll.adopt_roles = on to use it as it is.';
            END IF;
        END IF;
        EXECUTE pg_catalog.format('COMMENT ON ROLE %I IS %L', wanted.name, wanted.purpose);
    END LOOP;
END
$$;

CREATE SCHEMA plimsoll;
REVOKE ALL ON SCHEMA plimsoll FROM PUBLIC;
GRANT USAGE ON SCHEMA plimsoll TO plimsoll_admin, plimsoll_agent, plimsoll_reader;

-- What everybody may use. Indexes of managed tables are over these functions, and whoever writes to a table keeps its
-- indexes, with their own rights; statements on a table name the functions with the rights of its owner. They read their
-- arguments alone. Nothing else belongs here.
CREATE SCHEMA plimsoll_open;
REVOKE ALL ON SCHEMA plimsoll_open FROM PUBLIC;
GRANT USAGE ON SCHEMA plimsoll_open TO PUBLIC;

-- Both run once a row and look nothing up by a bare name: a pinned search_path would cost many times what they do.
CREATE FUNCTION plimsoll_open.hash_position(numbers integer[], VARIADIC columns "any") RETURNS bigint
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 20 AS 'MODULE_PATHNAME', 'hash_position_wrapper';
COMMENT ON FUNCTION plimsoll_open.hash_position(integer[], VARIADIC "any") IS
    'Where a row stands that is placed by a hash: of columns with these numbers, or of a ROW of them';

CREATE FUNCTION plimsoll_open.version_position(version bytea) RETURNS bigint
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 5 AS 'MODULE_PATHNAME', 'version_position_wrapper';
COMMENT ON FUNCTION plimsoll_open.version_position(bytea) IS
    'Where a row stands with a binary version: its first eight bytes as a number';

-- What statements of the extension read secrets by: a parameter is seen in logs.
CREATE FUNCTION plimsoll.held_secret() RETURNS bytea
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'held_secret_wrapper';
COMMENT ON FUNCTION plimsoll.held_secret() IS 'The secret that a function of the extension is writing';

-- Immutable only because a generated column asks for it: what a grant is to is settled when it is made.
CREATE FUNCTION plimsoll.role_oid(role name) RETURNS oid
    LANGUAGE c IMMUTABLE PARALLEL SAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'role_oid_wrapper';
COMMENT ON FUNCTION plimsoll.role_oid(name) IS 'The oid of the role with this name';

-- ---------------------------------------------------------------------------------------------------
-- Tables. Nobody but the extension's owner has privileges on them; people read the views.
-- ---------------------------------------------------------------------------------------------------

CREATE TABLE plimsoll.database_record (
    database_id uuid PRIMARY KEY,
    client_id text NOT NULL CHECK (client_id OPERATOR(pg_catalog.<>) ''),
    database_name text NOT NULL CHECK (database_name OPERATOR(pg_catalog.<>) ''),
    fingerprint_key bytea NOT NULL CHECK (pg_catalog.octet_length(fingerprint_key) OPERATOR(pg_catalog.=) 32),
    registered_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    registered_by name NOT NULL,
    suspended_at timestamptz,
    settings jsonb NOT NULL DEFAULT '{}',
    UNIQUE (client_id, database_name)
);

-- What is kept of tokens. The one that is good for ever is the newest; those before it end.
CREATE TABLE plimsoll.token_record (
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    made_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    stored_key bytea NOT NULL CHECK (pg_catalog.octet_length(stored_key) OPERATOR(pg_catalog.=) 32),
    good_until timestamptz,
    PRIMARY KEY (database_id, made_at)
);
CREATE UNIQUE INDEX token_record_newest ON plimsoll.token_record (database_id) WHERE good_until IS NULL;

-- When an agent logged in with a token last, to the minute; of those that were replaced alone. Beside the tokens,
-- because who logs in keeps its row locked until their transaction ends: nobody's token is to be kept good by that.
CREATE TABLE plimsoll.token_use (
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    made_at timestamptz NOT NULL,
    used_at timestamptz,
    PRIMARY KEY (database_id, made_at)
);

CREATE TABLE plimsoll.grant_record (
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    role_name name NOT NULL,
    -- Both must fit: another role may get the name. A dump leaves the oid out, and a grant whose role lost its name.
    role_oid oid GENERATED ALWAYS AS (plimsoll.role_oid(role_name)) STORED,
    granted_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    granted_by name NOT NULL,
    PRIMARY KEY (database_id, role_name)
);
CREATE INDEX grant_record_by_role ON plimsoll.grant_record (role_name);

-- Names, not oids: an oid restores as a wrong number. The oid is a cache, verified by name at each use.
CREATE TABLE plimsoll.table_record (
    table_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    schema_name name NOT NULL,
    table_name name NOT NULL,
    relation_oid oid NOT NULL,
    owner_name name NOT NULL,
    tenant_columns name[] NOT NULL,
    key_columns name[] NOT NULL,
    -- Without one, and where each row counts its own revisions, rows stand at a hash of the columns in placed_by.
    version_column name,
    modified_column name,
    version_scope text NOT NULL,
    server_columns name[] NOT NULL,
    placed_by name[] NOT NULL,
    -- Labels of the enums among these columns, by column: of renamed ones the hash would be another.
    placed_by_labels jsonb NOT NULL DEFAULT '{}',
    superuser_allowed boolean NOT NULL DEFAULT false,
    -- Triggers keep fingerprints of the rows up to date.
    keep_manifest boolean NOT NULL DEFAULT false,
    -- The one database whose rows a table without tenant columns holds.
    database_id uuid,
    -- Which ways agents may keep replicas level.
    directions text[] NOT NULL DEFAULT '{push,pull,snapshot,two-way}',
    managed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    managed_by name NOT NULL,
    unmanaged_at timestamptz,
    UNIQUE (schema_name, table_name)
);

-- Plimsoll's own column numbers: stable while attribute numbers are not, never used twice.
CREATE TABLE plimsoll.column_record (
    table_id integer NOT NULL REFERENCES plimsoll.table_record ON DELETE CASCADE,
    column_number integer NOT NULL CHECK (column_number OPERATOR(pg_catalog.>) 0),
    column_name name NOT NULL,
    PRIMARY KEY (table_id, column_number),
    UNIQUE (table_id, column_name)
);

-- Where the numbered columns stand in the table with this oid: a column that is renamed stays where it is. A dump
-- leaves them out: after a restore the names say which is which.
CREATE TABLE plimsoll.column_place (
    table_id integer NOT NULL REFERENCES plimsoll.table_record ON DELETE CASCADE,
    column_number integer NOT NULL,
    relation_oid oid NOT NULL,
    attribute_number smallint NOT NULL,
    PRIMARY KEY (table_id, column_number)
);

-- One row a database: the lease of the run under way, and the little that an idle run changes.
CREATE TABLE plimsoll.lease_record (
    database_id uuid PRIMARY KEY REFERENCES plimsoll.database_record ON DELETE CASCADE,
    run_id bigint NOT NULL,
    agent_id text NOT NULL,
    agent_version text NOT NULL,
    host text,
    user_name name NOT NULL,
    started_at timestamptz NOT NULL,
    lease_until timestamptz,
    last_seen_at timestamptz NOT NULL,
    last_ended_at timestamptz,
    -- The beginning of the last run that found all level replicas level: they are not written again then.
    confirmed_at timestamptz,
    idle_runs bigint NOT NULL DEFAULT 0,
    -- Of the run under way: which ways its tables go, the tables that it was refused, and those that it only reads.
    directions text[] NOT NULL DEFAULT '{}',
    refused integer[] NOT NULL DEFAULT '{}',
    only_read integer[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX lease_record_by_run ON plimsoll.lease_record (run_id);

CREATE TABLE plimsoll.run_record (
    run_id bigint PRIMARY KEY,
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    agent_id text NOT NULL,
    agent_version text NOT NULL,
    host text,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    outcome text,
    error text,
    inserted bigint NOT NULL DEFAULT 0,
    updated bigint NOT NULL DEFAULT 0,
    deleted bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    directions text[] NOT NULL DEFAULT '{}',
    -- What the agent reports of the local side, and of both.
    received bigint NOT NULL DEFAULT 0,
    deleted_local bigint NOT NULL DEFAULT 0,
    conflicts bigint NOT NULL DEFAULT 0,
    undecided bigint NOT NULL DEFAULT 0
);
CREATE INDEX run_record_by_database ON plimsoll.run_record (database_id, started_at);

CREATE TABLE plimsoll.batch_record (
    batch_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    run_id bigint NOT NULL,
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    table_id integer NOT NULL,
    kind text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) ANY (ARRAY['upload', 'delete', 'compare'])),
    row_count bigint NOT NULL CHECK (row_count OPERATOR(pg_catalog.>=) 0),
    byte_count bigint NOT NULL CHECK (byte_count OPERATOR(pg_catalog.>=) 0),
    duration_micros bigint NOT NULL CHECK (duration_micros OPERATOR(pg_catalog.>=) 0),
    finished_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    direction text NOT NULL,
    -- Which side its rows went to, or were compared with.
    side text NOT NULL CHECK (side OPERATOR(pg_catalog.=) ANY (ARRAY['local', 'remote']))
);
CREATE INDEX batch_record_by_table ON plimsoll.batch_record (database_id, table_id, batch_id);

CREATE TABLE plimsoll.rejected_record (
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    table_id integer NOT NULL REFERENCES plimsoll.table_record ON DELETE CASCADE,
    key_id bytea NOT NULL CHECK (pg_catalog.octet_length(key_id) OPERATOR(pg_catalog.=) 16),
    source_key bytea NOT NULL,
    source_digest bytea NOT NULL CHECK (pg_catalog.octet_length(source_digest) OPERATOR(pg_catalog.=) 32),
    "position" bigint,
    waits boolean NOT NULL,
    key jsonb NOT NULL,
    sqlstate text NOT NULL,
    column_name text,
    message text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    first_rejected_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_rejected_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    run_id bigint NOT NULL,
    PRIMARY KEY (database_id, table_id, key_id)
);

CREATE TABLE plimsoll.replica_record (
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    table_id integer NOT NULL REFERENCES plimsoll.table_record ON DELETE CASCADE,
    status text NOT NULL DEFAULT 'unknown',
    proved_at timestamptz,
    level_at timestamptz,
    local_rows bigint,
    row_count bigint,
    max_version bigint,
    max_modified timestamptz,
    error text,
    run_id bigint,
    reported_max bigint,
    hold_since timestamptz,
    hold_reason text,
    hold_planned bigint,
    released_rows bigint NOT NULL DEFAULT 0,
    released_until timestamptz,
    -- Rows added to a table without a key since the replica was last level: newer versions of rows still to be deleted.
    replacing_rows bigint NOT NULL DEFAULT 0,
    -- Which way it goes since an agent said so, and the local database that it is kept level with, where that is
    -- written to.
    direction text,
    side_id uuid,
    side_since timestamptz,
    -- What the last run that moved rows did, per side.
    moved_at timestamptz,
    sent bigint NOT NULL DEFAULT 0,
    received bigint NOT NULL DEFAULT 0,
    deleted_local bigint NOT NULL DEFAULT 0,
    deleted_remote bigint NOT NULL DEFAULT 0,
    conflicts bigint NOT NULL DEFAULT 0,
    -- Rows that are left as they are on both sides, and local rows that the guard of the local side holds back.
    undecided bigint NOT NULL DEFAULT 0,
    held_local bigint NOT NULL DEFAULT 0,
    held_local_since timestamptz,
    PRIMARY KEY (database_id, table_id)
);

-- Local databases that agents write to: each has an id of its own inside it.
CREATE TABLE plimsoll.side_record (
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    side_id uuid NOT NULL,
    agent_id text NOT NULL,
    host text,
    first_seen_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    -- About: written each quarter of an hour at most.
    last_seen_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (database_id, side_id)
);

-- The last upload of a run to each table without a key: rows that are sent again by an agent who got no answer must not
-- be stored twice. With the answer, for as long as the run goes on.
CREATE TABLE plimsoll.upload_record (
    run_id bigint NOT NULL,
    table_id integer NOT NULL REFERENCES plimsoll.table_record ON DELETE CASCADE,
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    batch_number bigint NOT NULL,
    -- Of the bytes that were sent, made with the database's own key.
    digest bytea NOT NULL,
    inserted bigint NOT NULL,
    fingerprint bytea NOT NULL,
    rejected text[] NOT NULL,
    PRIMARY KEY (run_id, table_id)
);
CREATE INDEX upload_record_by_database ON plimsoll.upload_record (database_id);

-- Two-way tables: the number of the run of a replica and of the last batch that was applied, each with the mark that was
-- made at random for the run: a number alone is given out again where all this is set back to what it was. Who applies a
-- batch holds the row.
CREATE TABLE plimsoll.two_way_record (
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    table_id integer NOT NULL REFERENCES plimsoll.table_record ON DELETE CASCADE,
    run bigint NOT NULL,
    mark bigint NOT NULL,
    last_batch bigint NOT NULL DEFAULT 0,
    last_mark bigint NOT NULL DEFAULT 0,
    begun boolean NOT NULL DEFAULT false,
    PRIMARY KEY (database_id, table_id)
) WITH (fillfactor = 50);

-- How far earlier runs came, those that applied batches: a local database that comes back from a backup may go on where
-- its last batch is of one of them.
CREATE TABLE plimsoll.two_way_run (
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    table_id integer NOT NULL REFERENCES plimsoll.table_record ON DELETE CASCADE,
    last_batch bigint NOT NULL,
    mark bigint NOT NULL,
    followed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (database_id, table_id, last_batch)
);

-- What became of the acts of a batch, or of a part of it, for some days: who got no answer asks again.
CREATE TABLE plimsoll.two_way_batch (
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    table_id integer NOT NULL REFERENCES plimsoll.table_record ON DELETE CASCADE,
    batch_number bigint NOT NULL,
    first_act integer NOT NULL,
    all_acts integer NOT NULL,
    -- Of the bytes that were sent, made with the database's own key.
    digest bytea NOT NULL,
    applied bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (database_id, table_id, batch_number, first_act)
);

-- Keys that were left as they are on both sides, with what both had then: one open record a key.
CREATE TABLE plimsoll.conflict_record (
    conflict_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    table_id integer NOT NULL REFERENCES plimsoll.table_record ON DELETE CASCADE,
    memory_key bytea NOT NULL CHECK (pg_catalog.octet_length(memory_key) OPERATOR(pg_catalog.=) 16),
    encoded_key bytea,
    kind text NOT NULL,
    side text,
    -- Nothing: no row; 16 bytes: the beginning of its digest; one byte: a row that no encoding holds.
    local_seen bytea NOT NULL,
    remote_seen bytea NOT NULL,
    key jsonb NOT NULL,
    local_row jsonb,
    remote_row jsonb,
    base_row jsonb,
    local_revision bigint,
    remote_revision bigint,
    reason jsonb,
    run_id bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    resolution text,
    resolved_row jsonb,
    resolved_at timestamptz,
    resolved_by name,
    closed_at timestamptz,
    outcome text
);
CREATE UNIQUE INDEX conflict_record_open ON plimsoll.conflict_record (database_id, table_id, memory_key)
    WHERE closed_at IS NULL;
CREATE INDEX conflict_record_by_database ON plimsoll.conflict_record (database_id, conflict_id);
CREATE INDEX conflict_record_chosen ON plimsoll.conflict_record (database_id, table_id, conflict_id)
    WHERE closed_at IS NULL AND resolution IS NOT NULL;
CREATE INDEX conflict_record_closed ON plimsoll.conflict_record (database_id, closed_at)
    WHERE closed_at IS NOT NULL;

-- Rows deleted or set back per hour: what the guard against destruction counts.
CREATE TABLE plimsoll.guard_record (
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    table_id integer NOT NULL REFERENCES plimsoll.table_record ON DELETE CASCADE,
    hour timestamptz NOT NULL,
    touched bigint NOT NULL,
    largest bigint NOT NULL,
    PRIMARY KEY (database_id, table_id, hour)
);

-- What administrators did. The trigger holds for the owner too.
CREATE TABLE plimsoll.act_record (
    act_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    acted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    act text NOT NULL,
    session_role name NOT NULL,
    effective_role name NOT NULL,
    client_address inet,
    application_name text NOT NULL,
    database_id uuid,
    relation text,
    arguments jsonb NOT NULL,
    outcome jsonb NOT NULL
);
CREATE FUNCTION plimsoll.acts_stay() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'acts_stay_wrapper';
COMMENT ON FUNCTION plimsoll.acts_stay() IS 'Refuses to change or delete what is recorded of administrative acts';
CREATE TRIGGER acts_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON plimsoll.act_record
    FOR EACH STATEMENT EXECUTE FUNCTION plimsoll.acts_stay();
ALTER TABLE plimsoll.act_record ENABLE ALWAYS TRIGGER acts_stay;

-- The kept manifest of a replica: what its blocks add up to. A dump leaves the three tables out: rows that
-- are restored are scanned once.
CREATE TABLE plimsoll.kept_head (
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    table_id integer NOT NULL REFERENCES plimsoll.table_record ON DELETE CASCADE,
    -- What the catalogue said of the table when the rows were scanned.
    definition bytea NOT NULL,
    mapping bigint NOT NULL,
    row_count bigint NOT NULL,
    sum bytea NOT NULL,
    max_modified timestamptz,
    rebuilt_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (database_id, table_id)
) WITH (fillfactor = 50, vacuum_truncate = off);

-- Disjoint ranges of positions, each of those that share their top bits; where no block is, no row is.
CREATE TABLE plimsoll.kept_block (
    database_id uuid NOT NULL,
    table_id integer NOT NULL,
    first_position bigint NOT NULL,
    last_position bigint NOT NULL,
    row_count bigint NOT NULL,
    sum bytea NOT NULL,
    max_modified timestamptz,
    PRIMARY KEY (database_id, table_id, first_position)
) WITH (fillfactor = 80, vacuum_truncate = off);

-- What statements changed and no block holds yet: one row a statement and replica, written by the triggers
-- alone, never updated. Without entries: the rows are to be scanned. No foreign key: it would lock a row of ours
-- for each of an application's statements. And nobody waits while a vacuum gives empty pages back.
CREATE TABLE plimsoll.kept_delta (
    database_id uuid NOT NULL,
    table_id integer NOT NULL,
    mapping bigint NOT NULL,
    entries bytea
) WITH (vacuum_truncate = off, toast.vacuum_truncate = off);
CREATE INDEX kept_delta_by_replica ON plimsoll.kept_delta (database_id, table_id);

-- The planner's estimates are for everyone to see, with EXPLAIN, and come from a sample of all rows. So only numbers of
-- databases and tables, roles and positions are sampled: what no view shows as it is, or everyone knows.
DO $$
DECLARE
    unsampled pg_catalog.record;
BEGIN
    FOR unsampled IN
        SELECT c.relname, a.attname
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid
        WHERE c.relnamespace OPERATOR(pg_catalog.=) 'plimsoll'::pg_catalog.regnamespace
            AND c.relkind OPERATOR(pg_catalog.=) 'r' AND a.attnum OPERATOR(pg_catalog.>) 0
            AND c.relname OPERATOR(pg_catalog.<>) ALL (ARRAY['table_record', 'column_record'])
            AND a.attname OPERATOR(pg_catalog.<>) ALL (
                ARRAY['database_id', 'table_id', 'role_name', 'mapping', 'first_position', 'last_position'])
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE plimsoll.%I ALTER COLUMN %I SET STATISTICS 0',
            unsampled.relname, unsampled.attname);
    END LOOP;
END
$$;

CREATE SEQUENCE plimsoll.run_number;
-- A sequence, because it survives the rollback that a failed login ends in.
CREATE SEQUENCE plimsoll.failed_logins;

-- pg_dump keeps their rows. One statement each: each changes the extension's row in the catalogue.
DO $$
DECLARE
    kept pg_catalog.text;
BEGIN
    FOREACH kept IN ARRAY ARRAY['database_record', 'token_record', 'token_use', 'act_record', 'act_record_act_id_seq', 'table_record', 'table_record_table_id_seq',
        'column_record', 'lease_record', 'run_record', 'batch_record', 'batch_record_batch_id_seq',
        'rejected_record', 'replica_record', 'side_record', 'upload_record', 'two_way_record', 'two_way_run', 'two_way_batch',
        'conflict_record', 'conflict_record_conflict_id_seq', 'guard_record', 'run_number', 'failed_logins']
    LOOP
        PERFORM pg_catalog.pg_extension_config_dump(
            ('plimsoll.' OPERATOR(pg_catalog.||) kept)::pg_catalog.regclass, '');
    END LOOP;
    PERFORM pg_catalog.pg_extension_config_dump('plimsoll.grant_record',
        'WHERE role_oid OPERATOR(pg_catalog.=) plimsoll.role_oid(role_name)');
END
$$;

-- ---------------------------------------------------------------------------------------------------
-- Databases, runs, history. The functions authorise the effective user themselves, before all else.
-- ---------------------------------------------------------------------------------------------------

CREATE FUNCTION plimsoll.register_database(client_id text, database_name text)
    RETURNS TABLE (database_id uuid, token text)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'register_database_wrapper';
COMMENT ON FUNCTION plimsoll.register_database(text, text) IS
    'Registers a database of a client; the token is shown this once';

CREATE FUNCTION plimsoll.adopt_database(database_id uuid, client_id text, database_name text,
        fingerprint_key bytea) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'adopt_database_wrapper';
COMMENT ON FUNCTION plimsoll.adopt_database(uuid, text, text, bytea) IS
    'Registers a database under the id and the key that it has on another server, so that fingerprints agree';

CREATE FUNCTION plimsoll.rotate_token(database_id uuid, grace interval DEFAULT '24 hours')
    RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'rotate_token_wrapper';
COMMENT ON FUNCTION plimsoll.rotate_token(uuid, interval) IS
    'A new token; those before stay good for the grace';

CREATE FUNCTION plimsoll.end_old_tokens(database_id uuid)
    RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'end_old_tokens_wrapper';
COMMENT ON FUNCTION plimsoll.end_old_tokens(uuid) IS
    'Ends the tokens that were replaced, whatever their grace; how many were still good';

CREATE FUNCTION plimsoll.failed_login_count()
    RETURNS bigint
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'failed_login_count_wrapper';
COMMENT ON FUNCTION plimsoll.failed_login_count() IS
    'Logins that were refused since the extension was created; the server''s log has a line for each';

CREATE FUNCTION plimsoll.suspend_database(database_id uuid)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'suspend_database_wrapper';
COMMENT ON FUNCTION plimsoll.suspend_database(uuid) IS
    'Refuses the database everything until it is resumed';

CREATE FUNCTION plimsoll.resume_database(database_id uuid)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'resume_database_wrapper';
COMMENT ON FUNCTION plimsoll.resume_database(uuid) IS
    'Ends a suspension';

CREATE FUNCTION plimsoll.forget_database(database_id uuid)
    RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'forget_database_wrapper';
COMMENT ON FUNCTION plimsoll.forget_database(uuid) IS
    'Deletes the rows of a database in every managed table, and its registration; the number of rows';

CREATE FUNCTION plimsoll.grant_database(database_id uuid, role name)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'grant_database_wrapper';
COMMENT ON FUNCTION plimsoll.grant_database(uuid, name) IS
    'Lets a role use a database without a token';

CREATE FUNCTION plimsoll.revoke_database(database_id uuid, role name)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'revoke_database_wrapper';
COMMENT ON FUNCTION plimsoll.revoke_database(uuid, name) IS
    'Takes back what grant_database gave';

CREATE FUNCTION plimsoll.set_option(database_id uuid, option text, value text)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'set_option_wrapper';
COMMENT ON FUNCTION plimsoll.set_option(uuid, text, text) IS
    'Sets an option of a database; NULL puts it back to its default';

CREATE FUNCTION plimsoll.begin_run(database_id uuid, agent_id text, agent_version text, protocol integer,
        host text DEFAULT NULL, local_versions jsonb DEFAULT NULL, directions jsonb DEFAULT NULL,
        side_id uuid DEFAULT NULL, dry_run boolean DEFAULT false)
    RETURNS TABLE (run_id bigint, lease_until timestamptz, tables jsonb)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'begin_run_wrapper';
COMMENT ON FUNCTION plimsoll.begin_run(uuid, text, text, integer, text, jsonb, jsonb, uuid, boolean) IS
    'Begins a run: takes the lease, and answers what the server has of every managed table';

CREATE FUNCTION plimsoll.renew_lease(run_id bigint) RETURNS timestamptz
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'renew_lease_wrapper';
COMMENT ON FUNCTION plimsoll.renew_lease(bigint) IS
    'Renews the lease of a run that reads, or writes elsewhere; until when it has it. Refused where another run followed';

CREATE FUNCTION plimsoll.end_run(run_id bigint, outcome text, tables jsonb DEFAULT NULL, error text DEFAULT NULL)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'end_run_wrapper';
COMMENT ON FUNCTION plimsoll.end_run(bigint, text, jsonb, text) IS
    'Ends a run (finished, stopped or failed), with the news of its tables';

CREATE FUNCTION plimsoll.record_batch(run_id bigint, relation text, kind text, row_count bigint,
        byte_count bigint, duration_micros bigint, side text DEFAULT NULL)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'record_batch_wrapper';
COMMENT ON FUNCTION plimsoll.record_batch(bigint, text, text, bigint, bigint, bigint, text) IS
    'Records a batch: upload, delete or compare, on the local or the remote side; where not said, on the one that the table''s direction writes to';

CREATE FUNCTION plimsoll.batch_history(database_id uuid, relation text, row_limit integer DEFAULT 50)
    RETURNS TABLE (kind text, row_count bigint, byte_count bigint, duration_micros bigint, finished_at timestamptz)
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 50 SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'batch_history_wrapper';
COMMENT ON FUNCTION plimsoll.batch_history(uuid, text, integer) IS
    'The batches of a replica, newest first';

CREATE FUNCTION plimsoll.reject_rows(run_id bigint, relation text, rejections jsonb)
    RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'reject_rows_wrapper';
COMMENT ON FUNCTION plimsoll.reject_rows(bigint, text, jsonb) IS
    'Remembers rows that could not be stored, with the reasons';

CREATE FUNCTION plimsoll.rejected_keys(database_id uuid, relation text)
    RETURNS TABLE (key_id bytea, source_key bytea, source_digest bytea, "position" bigint, waits boolean)
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 100 SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'rejected_keys_wrapper';
COMMENT ON FUNCTION plimsoll.rejected_keys(uuid, text) IS
    'The rows of a replica that are remembered as rejected or waiting';

CREATE FUNCTION plimsoll.clear_rejected(run_id bigint, relation text, key_ids bytea[])
    RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'clear_rejected_rows_wrapper';
COMMENT ON FUNCTION plimsoll.clear_rejected(bigint, text, bytea[]) IS
    'Forgets rejected rows that are stored now, or gone';

CREATE FUNCTION plimsoll.clear_rejected(database_id uuid, relation text)
    RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'clear_rejected_table_wrapper';
COMMENT ON FUNCTION plimsoll.clear_rejected(uuid, text) IS
    'Forgets all rejected rows of a replica, so that they are tried again';

CREATE FUNCTION plimsoll.release_hold(database_id uuid, relation text)
    RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'release_hold_wrapper';
COMMENT ON FUNCTION plimsoll.release_hold(uuid, text) IS
    'Approves what a hold held back, once, within a day; the number of rows that was planned';

CREATE FUNCTION plimsoll.forget_side(database_id uuid, relation text DEFAULT NULL)
    RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'forget_side_wrapper';
COMMENT ON FUNCTION plimsoll.forget_side(uuid, text) IS
    'Lets another local database take the place of the one that a replica, or every one, is kept level with; how many replicas had one';

CREATE FUNCTION plimsoll.resolve_conflict(conflict_id bigint, resolution text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'resolve_conflict_by_side_wrapper';
COMMENT ON FUNCTION plimsoll.resolve_conflict(bigint, text) IS
    'Decides a recorded conflict for one side, local or remote; the next run carries it out';

CREATE FUNCTION plimsoll.resolve_conflict(conflict_id bigint, resolved_row jsonb) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'resolve_conflict_by_row_wrapper';
COMMENT ON FUNCTION plimsoll.resolve_conflict(bigint, jsonb) IS
    'Decides a recorded conflict by another row: stored here at once, and on the local side by the next run';

CREATE FUNCTION plimsoll.visible_databases()
    RETURNS SETOF uuid
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 10 SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'visible_databases_wrapper';
COMMENT ON FUNCTION plimsoll.visible_databases() IS
    'The databases that the views show to the effective user';

CREATE FUNCTION plimsoll.visible_clients()
    RETURNS SETOF text
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 10 SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'visible_clients_wrapper';
COMMENT ON FUNCTION plimsoll.visible_clients() IS
    'The clients whose databases the views show to the effective user';

-- ---------------------------------------------------------------------------------------------------
-- Tables, rows. Entry points run with the caller's rights and switch users themselves.
-- ---------------------------------------------------------------------------------------------------

CREATE FUNCTION plimsoll.version(OUT extension_version text, OUT encoding_version integer) RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'version_wrapper';
COMMENT ON FUNCTION plimsoll.version() IS 'The versions of the extension and of the row encoding';

CREATE FUNCTION plimsoll.login_challenge() RETURNS bytea
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'login_challenge_wrapper';
COMMENT ON FUNCTION plimsoll.login_challenge() IS 'A nonce that plimsoll.login of the same transaction answers';

CREATE FUNCTION plimsoll.login(database_id uuid, proof bytea DEFAULT NULL,
        OUT client_id text, OUT fingerprint_key bytea, OUT settings jsonb) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'login_wrapper';
COMMENT ON FUNCTION plimsoll.login(uuid, bytea) IS
    'Logs this transaction in to a database; without a proof for a role that was granted it';

CREATE FUNCTION plimsoll.manage_table(relation regclass, key_columns name[] DEFAULT NULL,
        version_column name DEFAULT NULL, modified_column name DEFAULT NULL, version_scope text DEFAULT 'table',
        server_columns name[] DEFAULT '{}', tenant_columns name[] DEFAULT '{client_id,database_id}',
        superuser_allowed boolean DEFAULT false, keep_manifest boolean DEFAULT true,
        column_numbers jsonb DEFAULT NULL, database_id uuid DEFAULT NULL, directions text[] DEFAULT NULL)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'manage_table_wrapper';
COMMENT ON FUNCTION plimsoll.manage_table(regclass, name[], name, name, text, name[], name[], boolean, boolean,
    jsonb, uuid, text[]) IS
    'Hands a table with tenant columns over to Plimsoll';

CREATE FUNCTION plimsoll.set_directions(relation regclass, directions text[]) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'set_directions_wrapper';
COMMENT ON FUNCTION plimsoll.set_directions(regclass, text[]) IS
    'Which ways agents may keep replicas of a managed table level: push, pull, snapshot, two-way';

CREATE FUNCTION plimsoll.unmanage_table(relation regclass) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'unmanage_table_wrapper';
COMMENT ON FUNCTION plimsoll.unmanage_table(regclass) IS 'Ends the management of a table; its rows stay';

CREATE FUNCTION plimsoll.unmanage_table(relation text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'unmanage_table_by_name_wrapper';
COMMENT ON FUNCTION plimsoll.unmanage_table(text) IS
    'Ends the management of a table by its registered name, which may be gone; its rows stay';

CREATE FUNCTION plimsoll.protect_table(relation regclass, writable boolean DEFAULT false) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'protect_table_wrapper';
COMMENT ON FUNCTION plimsoll.protect_table(regclass, boolean) IS
    'Row-level security for who reads a managed table directly: only rows of the databases that they may see';

CREATE FUNCTION plimsoll.unprotect_table(relation regclass) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'unprotect_table_wrapper';
COMMENT ON FUNCTION plimsoll.unprotect_table(regclass) IS 'Takes back what protect_table did';

-- Nobody may make a trigger of it, and no search path is pinned: it runs after every statement of an application
-- on a managed table, where setting one would cost more than all the rest; it looks nothing up by a bare name.
CREATE FUNCTION plimsoll.kept_trigger() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'kept_trigger_wrapper';
COMMENT ON FUNCTION plimsoll.kept_trigger() IS
    'Keeps the manifests of a managed table as its rows change; made a trigger by plimsoll.manage_table alone';

-- What a subscription applies fires no trigger of a statement. While it is there nothing is answered from manifests
-- of its tables; before it goes, or lets tables go, these manifests do.
CREATE FUNCTION plimsoll.kept_subscription() RETURNS event_trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'kept_subscription_wrapper';
COMMENT ON FUNCTION plimsoll.kept_subscription() IS
    'Puts manifests of tables that a subscription wrote to out of use until they are rebuilt';
CREATE EVENT TRIGGER plimsoll_subscription ON ddl_command_start
    WHEN TAG IN ('ALTER SUBSCRIPTION', 'DROP SUBSCRIPTION')
    EXECUTE FUNCTION plimsoll.kept_subscription();

CREATE FUNCTION plimsoll.kept_rewrite() RETURNS event_trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'kept_rewrite_wrapper';
COMMENT ON FUNCTION plimsoll.kept_rewrite() IS
    'Puts manifests of a table that ALTER TABLE writes anew out of use until they are rebuilt';
CREATE EVENT TRIGGER plimsoll_rewrite ON table_rewrite EXECUTE FUNCTION plimsoll.kept_rewrite();

-- As kept_trigger it pins no search path: it runs before every row that an application writes.
CREATE FUNCTION plimsoll.stamp_trigger() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'stamp_trigger_wrapper';
COMMENT ON FUNCTION plimsoll.stamp_trigger() IS
    'Raises the version of a row that an application changes; made a trigger by plimsoll.stamp_versions alone';

CREATE FUNCTION plimsoll.stamp_versions(relation regclass) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'stamp_versions_wrapper';
COMMENT ON FUNCTION plimsoll.stamp_versions(regclass) IS
    'Has a trigger raise the versions of rows that applications change; those that a sync stores keep theirs';

CREATE FUNCTION plimsoll.unstamp_versions(relation regclass) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'unstamp_versions_wrapper';
COMMENT ON FUNCTION plimsoll.unstamp_versions(regclass) IS
    'Takes back what stamp_versions did; whether there was something to take back';

CREATE FUNCTION plimsoll.keep_manifest(relation regclass, keep boolean) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'keep_manifest_wrapper';
COMMENT ON FUNCTION plimsoll.keep_manifest(regclass, boolean) IS
    'Switches the kept manifests of a table on (and repairs their triggers) or off; whether they are on';

CREATE FUNCTION plimsoll.rebuild_manifest(database_id uuid, relation text) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'rebuild_manifest_wrapper';
COMMENT ON FUNCTION plimsoll.rebuild_manifest(uuid, text) IS
    'Scans a replica once, so that its manifest is trusted from then on; the number of rows';

CREATE FUNCTION plimsoll.fold_manifest(database_id uuid, relation text) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'fold_manifest_wrapper';
COMMENT ON FUNCTION plimsoll.fold_manifest(uuid, text) IS
    'Adds the changes that are pending to the blocks of a replica; how many statements they are of';

CREATE FUNCTION plimsoll.check_manifest(database_id uuid, relation text, OUT range int8range, OUT kept_rows bigint,
        OUT kept_fingerprint bytea, OUT actual_rows bigint, OUT actual_fingerprint bytea) RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'check_manifest_wrapper';
COMMENT ON FUNCTION plimsoll.check_manifest(uuid, text) IS
    'The ranges of which the manifest says something else than the rows: none when it is right';

CREATE FUNCTION plimsoll.table_versions(database_id uuid, OUT relation text, OUT row_count bigint,
        OUT max_version bigint, OUT max_modified timestamptz, OUT fingerprint bytea) RETURNS SETOF record
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'table_versions_wrapper';
COMMENT ON FUNCTION plimsoll.table_versions(uuid) IS 'What each replica of a database says of itself';

CREATE FUNCTION plimsoll.table_version(database_id uuid, INOUT relation text, OUT row_count bigint,
        OUT max_version bigint, OUT max_modified timestamptz, OUT fingerprint bytea) RETURNS SETOF record
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'table_version_wrapper';
COMMENT ON FUNCTION plimsoll.table_version(uuid, text) IS 'What one replica says of itself';

CREATE FUNCTION plimsoll.table_schema(database_id uuid, relation text, OUT column_number integer,
        OUT column_name text, OUT column_type text, OUT not_null boolean, OUT is_key boolean,
        OUT is_version boolean, OUT is_modified boolean, OUT places boolean) RETURNS SETOF record
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'table_schema_wrapper';
COMMENT ON FUNCTION plimsoll.table_schema(uuid, text) IS
    'The columns of a managed table that are sent, with their stable numbers';

CREATE FUNCTION plimsoll.range_fingerprint(database_id uuid, relation text, range int8range,
        OUT row_count bigint, OUT fingerprint bytea) RETURNS SETOF record
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'range_fingerprint_wrapper';
COMMENT ON FUNCTION plimsoll.range_fingerprint(uuid, text, int8range) IS
    'Row count and digest sum of a range of versions';

-- The functions of the aggregate run once a row and run no SQL: a pinned search_path would cost more than they.
CREATE FUNCTION plimsoll.fingerprint_add(state bytea, key bytea, VARIADIC columns "any") RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'fingerprint_add_wrapper';
COMMENT ON FUNCTION plimsoll.fingerprint_add(bytea, bytea, VARIADIC "any") IS
    'Adds a row to the state of plimsoll.fingerprint';

CREATE FUNCTION plimsoll.fingerprint_combine(state bytea, other bytea) RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'fingerprint_combine_wrapper';
COMMENT ON FUNCTION plimsoll.fingerprint_combine(bytea, bytea) IS
    'Adds up two states of plimsoll.fingerprint, as parallel plans do';

CREATE FUNCTION plimsoll.fingerprint_sum(state bytea) RETURNS bytea
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'fingerprint_sum_wrapper';
COMMENT ON FUNCTION plimsoll.fingerprint_sum(bytea) IS 'The digest sum in a state of plimsoll.fingerprint';

-- The state is a row count of 8 bytes and a digest sum of 32; in groups of many rows, some of them wait behind it.
CREATE AGGREGATE plimsoll.fingerprint(key bytea, VARIADIC columns "any") (
    SFUNC = plimsoll.fingerprint_add, STYPE = bytea, SSPACE = 44,
    FINALFUNC = plimsoll.fingerprint_sum, COMBINEFUNC = plimsoll.fingerprint_combine,
    INITCOND = '\x00000000000000000000000000000000000000000000000000000000000000000000000000000000', PARALLEL = SAFE);
COMMENT ON AGGREGATE plimsoll.fingerprint(bytea, VARIADIC "any") IS
    'Digest sum of rows with a fingerprint key: of their columns in the order of their numbers, or of whole rows';

CREATE FUNCTION plimsoll.manifest(database_id uuid, relation text, range int8range,
        OUT key jsonb, OUT version bigint, OUT modified timestamptz, OUT digest bytea) RETURNS SETOF record
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'manifest_wrapper';
COMMENT ON FUNCTION plimsoll.manifest(uuid, text, int8range) IS
    'The rows of a range of versions: key, version, last change, digest';

CREATE FUNCTION plimsoll.packed_manifest(database_id uuid, relation text, range int8range, row_limit integer)
    RETURNS bytea
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'packed_manifest_wrapper';
COMMENT ON FUNCTION plimsoll.packed_manifest(uuid, text, int8range, integer) IS
    'The row manifest of a range as agents read it: positions and digests';

CREATE FUNCTION plimsoll.range_manifest(database_id uuid, relation text, INOUT range int8range,
        max_ranges integer DEFAULT 100, OUT row_count bigint, OUT fingerprint bytea) RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'range_manifest_wrapper';
COMMENT ON FUNCTION plimsoll.range_manifest(uuid, text, int8range, integer) IS
    'A range of versions divided into ranges of about equal row count, with what each holds';

CREATE FUNCTION plimsoll.sketch(database_id uuid, relation text, ranges int8multirange, first integer,
        symbols integer) RETURNS bytea
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'sketch_wrapper';
COMMENT ON FUNCTION plimsoll.sketch(uuid, text, int8multirange, integer, integer) IS
    'Coded symbols over the rows of ranges of versions, by which two sides find what differs';

CREATE FUNCTION plimsoll.packed_ranges(database_id uuid, relation text, ranges bytea, max_ranges integer)
    RETURNS bytea
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'packed_ranges_wrapper';
COMMENT ON FUNCTION plimsoll.packed_ranges(uuid, text, bytea, integer) IS
    'Ranges, each divided into at most max_ranges as range_manifest does, as agents read it';

CREATE FUNCTION plimsoll.packed_summaries(database_id uuid, relation text, ranges bytea) RETURNS bytea
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'packed_summaries_wrapper';
COMMENT ON FUNCTION plimsoll.packed_summaries(uuid, text, bytea) IS
    'What exactly these ranges hold';

CREATE FUNCTION plimsoll.packed_sketch(database_id uuid, relation text, ranges bytea, first integer,
        symbols integer) RETURNS bytea
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'packed_sketch_wrapper';
COMMENT ON FUNCTION plimsoll.packed_sketch(uuid, text, bytea, integer, integer) IS
    'Coded symbols over the rows of packed ranges';

CREATE FUNCTION plimsoll.packed_items(database_id uuid, relation text, ranges bytea) RETURNS bytea
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'packed_items_wrapper';
COMMENT ON FUNCTION plimsoll.packed_items(uuid, text, bytea) IS
    'Positions and short digests of the rows of ranges';

CREATE FUNCTION plimsoll.packed_keys(database_id uuid, relation text, items bytea) RETURNS bytea
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'packed_keys_wrapper';
COMMENT ON FUNCTION plimsoll.packed_keys(uuid, text, bytea) IS
    'The keys of rows named by position and short digest';

CREATE FUNCTION plimsoll.packed_rows(database_id uuid, relation text, items bytea) RETURNS bytea
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'packed_rows_wrapper';
COMMENT ON FUNCTION plimsoll.packed_rows(uuid, text, bytea) IS
    'The encoded rows named by position and short digest';

CREATE FUNCTION plimsoll.packed_batch(database_id uuid, relation text, after bytea, row_limit integer,
        byte_limit bigint, OUT rows bytea, OUT next bytea) RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'packed_batch_wrapper';
COMMENT ON FUNCTION plimsoll.packed_batch(uuid, text, bytea, integer, bigint) IS
    'The next encoded rows in version order, within a number of rows and bytes, and where to go on';

CREATE FUNCTION plimsoll.packed_lookup(database_id uuid, relation text, keys bytea) RETURNS bytea
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'packed_lookup_wrapper';
COMMENT ON FUNCTION plimsoll.packed_lookup(uuid, text, bytea) IS
    'The encoded rows with these encoded keys';

CREATE FUNCTION plimsoll.packed_windows(database_id uuid, relation text, ranges bytea, row_limit integer)
    RETURNS bytea
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'packed_windows_wrapper';
COMMENT ON FUNCTION plimsoll.packed_windows(uuid, text, bytea, integer) IS
    'Positions and digests of the rows of ranges, and where to go on';

CREATE FUNCTION plimsoll.packed_fingerprints(database_id uuid, relation text, ranges bytea) RETURNS bytea
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'packed_fingerprints_wrapper';
COMMENT ON FUNCTION plimsoll.packed_fingerprints(uuid, text, bytea) IS
    'Row counts and whole digest sums of ranges';

CREATE FUNCTION plimsoll.change_mark(database_id uuid, relation text) RETURNS bytea
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'change_mark_wrapper';
COMMENT ON FUNCTION plimsoll.change_mark(uuid, text) IS
    'Bytes that are others after whatever changed a row; NULL where no manifest is kept';

CREATE FUNCTION plimsoll.tail_start(database_id uuid, relation text, upto bigint, row_count integer) RETURNS bigint
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'tail_start_wrapper';
COMMENT ON FUNCTION plimsoll.tail_start(uuid, text, bigint, integer) IS
    'The version at which the last rows up to a version begin; NULL where there are fewer';

CREATE FUNCTION plimsoll.download(database_id uuid, relation text, range int8range, row_limit integer,
        after bytea DEFAULT NULL, OUT "row" bytea, OUT "cursor" bytea) RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'download_wrapper';
COMMENT ON FUNCTION plimsoll.download(uuid, text, int8range, integer, bytea) IS
    'Encoded rows of a range in (version, key) order, and where to go on';

CREATE FUNCTION plimsoll.upload(database_id uuid, relation text, rows bytea, run_id bigint DEFAULT NULL,
        schema_stamp bigint DEFAULT NULL, absent_columns integer[] DEFAULT NULL, batch_number bigint DEFAULT NULL,
        OUT inserted bigint, OUT updated bigint, OUT unchanged bigint, OUT fingerprint bytea, OUT held bigint,
        OUT rejected jsonb) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'upload_wrapper';
COMMENT ON FUNCTION plimsoll.upload(uuid, text, bytea, bigint, bigint, integer[], bigint) IS
    'Stores encoded rows as they were sent, or says row by row why not; in a table without a key each number once';

CREATE FUNCTION plimsoll.upload(database_id uuid, relation text, rows jsonb, run_id bigint DEFAULT NULL,
        OUT inserted bigint, OUT updated bigint, OUT unchanged bigint, OUT fingerprint bytea, OUT held bigint,
        OUT rejected jsonb) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'upload_json_wrapper';
COMMENT ON FUNCTION plimsoll.upload(uuid, text, jsonb, bigint) IS
    'Stores rows given as an array of objects, or says row by row why not';

CREATE FUNCTION plimsoll.delete_rows(database_id uuid, relation text, rows bytea, run_id bigint DEFAULT NULL,
        planned bigint DEFAULT NULL, OUT deleted bigint, OUT held bigint, OUT blocked jsonb) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'delete_rows_wrapper';
COMMENT ON FUNCTION plimsoll.delete_rows(uuid, text, bytea, bigint, bigint) IS
    'Deletes exactly the rows that a packed list names by key, position and digest';

CREATE FUNCTION plimsoll.delete_rows(database_id uuid, relation text, rows jsonb, run_id bigint DEFAULT NULL,
        OUT deleted bigint, OUT held bigint, OUT blocked jsonb) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'delete_rows_json_wrapper';
COMMENT ON FUNCTION plimsoll.delete_rows(uuid, text, jsonb, bigint) IS
    'Deletes rows named by key; where given, version and digest must match';

CREATE FUNCTION plimsoll.delete_range(database_id uuid, relation text, range int8range, run_id bigint DEFAULT NULL,
        OUT deleted bigint, OUT held bigint, OUT blocked jsonb) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'delete_range_wrapper';
COMMENT ON FUNCTION plimsoll.delete_range(uuid, text, int8range, bigint) IS 'Deletes the rows of a range of versions';

CREATE FUNCTION plimsoll.delete_all(database_id uuid, relation text, run_id bigint DEFAULT NULL,
        OUT deleted bigint, OUT held bigint, OUT blocked jsonb) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'delete_all_wrapper';
COMMENT ON FUNCTION plimsoll.delete_all(uuid, text, bigint) IS 'Deletes a replica''s rows';

-- ---------------------------------------------------------------------------------------------------
-- Two-way tables: what a client calls. What is packed is described in docs/encoding.md.
-- ---------------------------------------------------------------------------------------------------

CREATE FUNCTION plimsoll.two_way_begin(database_id uuid, relation text, run_id bigint, dry_run boolean DEFAULT false,
        OUT row_count bigint, OUT fingerprint bytea, OUT begun boolean, OUT run bigint, OUT mark bigint,
        OUT last_batch bigint, OUT last_mark bigint, OUT choices bytea, OUT most_bytes bigint, OUT most_acts bigint,
        OUT clock bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'two_way_begin_wrapper';
COMMENT ON FUNCTION plimsoll.two_way_begin(uuid, text, bigint, boolean) IS
    'Begins a run of a two-way table, after which no batch of an earlier one is applied; what is remembered of it';

CREATE FUNCTION plimsoll.two_way_base(database_id uuid, relation text, run_id bigint) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'two_way_base_wrapper';
COMMENT ON FUNCTION plimsoll.two_way_base(uuid, text, bigint) IS
    'Remembers that the local side began a base, and closes all records of the replica';

CREATE FUNCTION plimsoll.two_way_settle(database_id uuid, relation text, run_id bigint, batch_number bigint,
        mark bigint, OUT outcome text, OUT done bytea) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'two_way_settle_wrapper';
COMMENT ON FUNCTION plimsoll.two_way_settle(uuid, text, bigint, bigint, bigint) IS
    'Whether the batch of an earlier run with this mark was applied (applied, never or forgotten), and which of its acts were done';

CREATE FUNCTION plimsoll.two_way_fetch(database_id uuid, relation text, wanted bytea, byte_limit integer)
    RETURNS bytea
    LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'two_way_fetch_wrapper';
COMMENT ON FUNCTION plimsoll.two_way_fetch(uuid, text, bytea, integer) IS
    'Rows named by position and short digest, with their content or without, as many as fit into so many bytes';

CREATE FUNCTION plimsoll.two_way_apply(database_id uuid, relation text, run_id bigint, batch_number bigint,
        acts bytea, planned bigint DEFAULT 0, first_act integer DEFAULT 0, all_acts integer DEFAULT NULL,
        schema_stamp bigint DEFAULT NULL) RETURNS bytea
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'two_way_apply_wrapper';
COMMENT ON FUNCTION plimsoll.two_way_apply(uuid, text, bigint, bigint, bytea, bigint, integer, integer, bigint) IS
    'Carries the acts of a batch out, each only where the replica has what it was decided upon, once a number';

CREATE FUNCTION plimsoll.two_way_close(database_id uuid, relation text, run_id bigint, keys bytea) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'two_way_close_wrapper';
COMMENT ON FUNCTION plimsoll.two_way_close(uuid, text, bigint, bytea) IS
    'Closes the records of keys on which both sides agree; how many';

-- ---------------------------------------------------------------------------------------------------
-- Views for people. Each shows a role only the databases that it may see. Our tables are read one visible database at
-- a time, behind OFFSET 0: the planner moves no condition of a query past it, however harmless, so that neither plans
-- nor the row counts of EXPLAIN ANALYZE tell whether others' rows meet it. A condition on database_id reaches
-- visible_databases() itself.
-- ---------------------------------------------------------------------------------------------------

CREATE VIEW plimsoll.databases WITH (security_barrier) AS
SELECT d.client_id,
       d.database_name,
       visible.database_id,
       d.registered_at,
       d.registered_by,
       d.suspended_at,
       d.last_seen_at,
       d.agent_id,
       d.agent_version,
       d.host,
       d.lease_holder,
       d.lease_until,
       d.last_run_at,
       d.last_ended_at,
       d.idle_runs,
       d.tables,
       d.granted_to,
       d.settings,
       d.old_tokens_until,
       d.old_token_used_at
FROM plimsoll.visible_databases() AS visible (database_id)
CROSS JOIN LATERAL (
    SELECT d.client_id, d.database_name, d.registered_at, d.registered_by, d.suspended_at, l.last_seen_at, l.agent_id,
           l.agent_version, l.host,
           CASE WHEN l.lease_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN l.agent_id END AS lease_holder,
           CASE WHEN l.lease_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN l.lease_until END AS lease_until,
           l.started_at AS last_run_at,
           l.last_ended_at,
           COALESCE(l.idle_runs, 0) AS idle_runs,
           (SELECT pg_catalog.count(*) FROM plimsoll.replica_record r
            WHERE r.database_id OPERATOR(pg_catalog.=) d.database_id) AS tables,
           ARRAY(SELECT g.role_name FROM plimsoll.grant_record g
                 WHERE g.database_id OPERATOR(pg_catalog.=) d.database_id
                     AND g.role_name OPERATOR(pg_catalog.=) pg_catalog.pg_get_userbyid(g.role_oid)
                 ORDER BY g.role_name) AS granted_to,
           d.settings,
           old.good_until AS old_tokens_until,
           old.used_at AS old_token_used_at
    FROM plimsoll.database_record d
    LEFT JOIN plimsoll.lease_record l ON l.database_id OPERATOR(pg_catalog.=) d.database_id
    CROSS JOIN LATERAL (
        SELECT pg_catalog.max(t.good_until) AS good_until, pg_catalog.max(u.used_at) AS used_at
        FROM plimsoll.token_record t
        LEFT JOIN plimsoll.token_use u ON u.database_id OPERATOR(pg_catalog.=) t.database_id
            AND u.made_at OPERATOR(pg_catalog.=) t.made_at
        WHERE t.database_id OPERATOR(pg_catalog.=) d.database_id
            AND t.good_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()) old
    WHERE d.database_id OPERATOR(pg_catalog.=) visible.database_id
    OFFSET 0) d;
COMMENT ON VIEW plimsoll.databases IS 'Registered databases: whose, when last seen, who holds the lease';

-- Names of tables are in Postgres' own catalogue for everyone to read; which database alone has rows in one is not.
CREATE VIEW plimsoll.tables WITH (security_barrier) AS
SELECT pg_catalog.format('%I.%I', t.schema_name, t.table_name) AS relation,
       t.owner_name AS owner,
       t.key_columns,
       pg_catalog.cardinality(t.key_columns) OPERATOR(pg_catalog.=) 0 AS is_keyless,
       t.version_column,
       t.version_scope,
       CASE WHEN pg_catalog.cardinality(t.placed_by) OPERATOR(pg_catalog.=) 0 THEN 'version' ELSE 'hash' END AS axis,
       t.placed_by,
       t.modified_column,
       t.server_columns,
       t.tenant_columns,
       t.managed_at,
       t.managed_by,
       t.keep_manifest,
       t.directions,
       t.database_id,
       EXISTS (SELECT FROM pg_catalog.pg_class c
               JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
               WHERE n.nspname OPERATOR(pg_catalog.=) t.schema_name
                   AND c.relname OPERATOR(pg_catalog.=) t.table_name) AS is_there
FROM plimsoll.table_record t
WHERE t.unmanaged_at IS NULL
    AND (t.database_id IS NULL
         OR t.database_id OPERATOR(pg_catalog.=) ANY (SELECT plimsoll.visible_databases()))
OFFSET 0;
COMMENT ON VIEW plimsoll.tables IS 'Managed tables: owner, key, version, columns with a part of their own';

CREATE VIEW plimsoll.replicas WITH (security_barrier) AS
SELECT d.client_id,
       d.database_name,
       visible.database_id,
       r.relation,
       r.row_count,
       r.local_rows,
       r.max_version,
       r.max_modified,
       r.status,
       r.proved_at,
       d.last_seen_at,
       d.last_run_at,
       pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-)
           CASE WHEN r.is_level THEN GREATEST(r.level_at, d.confirmed_at) ELSE r.level_at END AS lag,
       r.rejected_rows,
       r.waiting_rows,
       r.hold_since,
       r.hold_reason,
       r.hold_planned,
       r.error,
       d.agent_version,
       d.host,
       r.direction,
       r.moved_at,
       r.sent,
       r.received,
       r.deleted_local,
       r.deleted_remote,
       r.conflicts,
       r.open_conflicts,
       r.undecided_rows,
       r.held_local_rows,
       r.held_local_since,
       r.side_id,
       r.side_since,
       r.side_host,
       r.side_seen_at
FROM plimsoll.visible_databases() AS visible (database_id)
CROSS JOIN LATERAL (
    SELECT d.database_id, d.client_id, d.database_name, l.last_seen_at, l.started_at AS last_run_at, l.confirmed_at,
           l.agent_version, l.host
    FROM plimsoll.database_record d
    LEFT JOIN plimsoll.lease_record l ON l.database_id OPERATOR(pg_catalog.=) d.database_id
    WHERE d.database_id OPERATOR(pg_catalog.=) visible.database_id
    OFFSET 0) d
CROSS JOIN LATERAL (
    SELECT pg_catalog.format('%I.%I', t.schema_name, t.table_name) AS relation,
           r.row_count, r.local_rows, r.max_version, r.max_modified,
           CASE WHEN r.hold_since IS NULL AND r.held_local OPERATOR(pg_catalog.=) 0 THEN r.status
               ELSE 'different' END AS status,
           r.status OPERATOR(pg_catalog.=) ANY (ARRAY['level', 'counts_agree', 'level_except']) AS is_level,
           r.proved_at, r.level_at, rejected.rejected_rows, rejected.waiting_rows,
           r.hold_since, r.hold_reason, r.hold_planned, r.error, r.direction, r.moved_at, r.sent, r.received,
           r.deleted_local, r.deleted_remote, r.conflicts, r.undecided AS undecided_rows, recorded.open_conflicts,
           r.held_local AS held_local_rows, r.held_local_since, r.side_id, r.side_since, s.host AS side_host,
           s.last_seen_at AS side_seen_at
    FROM plimsoll.replica_record r
    JOIN plimsoll.table_record t ON t.table_id OPERATOR(pg_catalog.=) r.table_id AND t.unmanaged_at IS NULL
    LEFT JOIN plimsoll.side_record s ON s.database_id OPERATOR(pg_catalog.=) r.database_id
        AND s.side_id OPERATOR(pg_catalog.=) r.side_id
    CROSS JOIN LATERAL (
        SELECT pg_catalog.count(*) FILTER (WHERE NOT j.waits) AS rejected_rows,
               pg_catalog.count(*) FILTER (WHERE j.waits) AS waiting_rows
        FROM plimsoll.rejected_record j
        WHERE j.database_id OPERATOR(pg_catalog.=) r.database_id
            AND j.table_id OPERATOR(pg_catalog.=) r.table_id) rejected
    CROSS JOIN LATERAL (
        SELECT pg_catalog.count(*) AS open_conflicts FROM plimsoll.conflict_record c
        WHERE c.database_id OPERATOR(pg_catalog.=) r.database_id
            AND c.table_id OPERATOR(pg_catalog.=) r.table_id AND c.closed_at IS NULL) recorded
    WHERE r.database_id OPERATOR(pg_catalog.=) d.database_id
    OFFSET 0) r;
COMMENT ON VIEW plimsoll.replicas IS 'Each database in each managed table: rows, status, proof, lag, rejected rows, hold';

CREATE VIEW plimsoll.runs WITH (security_barrier) AS
SELECT d.client_id,
       d.database_name,
       visible.database_id,
       run.run_id,
       run.agent_id,
       run.agent_version,
       run.host,
       run.started_at,
       run.ended_at,
       COALESCE(run.outcome, CASE WHEN run.run_id OPERATOR(pg_catalog.=) d.running THEN 'running' ELSE 'abandoned' END)
           AS outcome,
       run.error,
       run.inserted,
       run.updated,
       run.deleted,
       run.rejected,
       run.directions,
       run.inserted OPERATOR(pg_catalog.+) run.updated AS sent,
       run.received,
       run.deleted_local,
       run.conflicts,
       run.undecided
FROM plimsoll.visible_databases() AS visible (database_id)
CROSS JOIN LATERAL (
    SELECT d.database_id, d.client_id, d.database_name,
           CASE WHEN l.lease_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN l.run_id END AS running
    FROM plimsoll.database_record d
    LEFT JOIN plimsoll.lease_record l ON l.database_id OPERATOR(pg_catalog.=) d.database_id
    WHERE d.database_id OPERATOR(pg_catalog.=) visible.database_id
    OFFSET 0) d
CROSS JOIN LATERAL (
    SELECT r.run_id, r.agent_id, r.agent_version, r.host, r.started_at, r.ended_at, r.outcome, r.error,
           r.inserted, r.updated, r.deleted, r.rejected, r.directions, r.received, r.deleted_local, r.conflicts,
           r.undecided
    FROM plimsoll.run_record r WHERE r.database_id OPERATOR(pg_catalog.=) d.database_id
    UNION ALL
    SELECT l.run_id, l.agent_id, l.agent_version, l.host, l.started_at, NULL, NULL, NULL, 0, 0, 0, 0,
           l.directions, 0, 0, 0, 0
    FROM plimsoll.lease_record l
    WHERE l.database_id OPERATOR(pg_catalog.=) d.database_id AND l.lease_until IS NOT NULL
        AND NOT EXISTS (SELECT FROM plimsoll.run_record r WHERE r.run_id OPERATOR(pg_catalog.=) l.run_id)
    OFFSET 0) run;
COMMENT ON VIEW plimsoll.runs IS 'Runs that recorded something, and those under way; idle runs are counted in plimsoll.databases';

CREATE VIEW plimsoll.batches WITH (security_barrier) AS
SELECT d.client_id,
       d.database_name,
       visible.database_id,
       b.relation,
       b.run_id,
       b.batch_id,
       b.kind,
       b.row_count,
       b.byte_count,
       b.duration_micros,
       b.finished_at,
       b.direction,
       b.side
FROM plimsoll.visible_databases() AS visible (database_id)
CROSS JOIN LATERAL (
    SELECT d.database_id, d.client_id, d.database_name FROM plimsoll.database_record d
    WHERE d.database_id OPERATOR(pg_catalog.=) visible.database_id
    OFFSET 0) d
CROSS JOIN LATERAL (
    SELECT pg_catalog.format('%I.%I', t.schema_name, t.table_name) AS relation,
           b.run_id, b.batch_id, b.kind, b.row_count, b.byte_count, b.duration_micros, b.finished_at, b.direction,
           b.side
    FROM plimsoll.batch_record b
    JOIN plimsoll.table_record t ON t.table_id OPERATOR(pg_catalog.=) b.table_id
    WHERE b.database_id OPERATOR(pg_catalog.=) d.database_id
    OFFSET 0) b;
COMMENT ON VIEW plimsoll.batches IS 'Batches of runs: what they carried and how long they took';

CREATE VIEW plimsoll.rejected_rows WITH (security_barrier) AS
SELECT d.client_id,
       d.database_name,
       visible.database_id,
       j.relation,
       j.key,
       j."position",
       j.waits,
       j.sqlstate,
       j.column_name,
       j.message,
       j.attempts,
       j.first_rejected_at,
       j.last_rejected_at,
       j.run_id
FROM plimsoll.visible_databases() AS visible (database_id)
CROSS JOIN LATERAL (
    SELECT d.database_id, d.client_id, d.database_name FROM plimsoll.database_record d
    WHERE d.database_id OPERATOR(pg_catalog.=) visible.database_id
    OFFSET 0) d
CROSS JOIN LATERAL (
    SELECT pg_catalog.format('%I.%I', t.schema_name, t.table_name) AS relation,
           j.key, j."position", j.waits, j.sqlstate, j.column_name, j.message, j.attempts, j.first_rejected_at,
           j.last_rejected_at, j.run_id
    FROM plimsoll.rejected_record j
    JOIN plimsoll.table_record t ON t.table_id OPERATOR(pg_catalog.=) j.table_id AND t.unmanaged_at IS NULL
    WHERE j.database_id OPERATOR(pg_catalog.=) d.database_id
    OFFSET 0) j;
COMMENT ON VIEW plimsoll.rejected_rows IS 'Rows that could not be stored, or wait for others, with the reasons';

CREATE VIEW plimsoll.conflicts WITH (security_barrier) AS
SELECT d.client_id,
       d.database_name,
       visible.database_id,
       c.conflict_id,
       c.relation,
       c.key,
       c.kind,
       c.side,
       c.local_row,
       c.remote_row,
       c.base_row,
       c.reason,
       c.run_id,
       c.recorded_at,
       c.resolution,
       c.resolved_row,
       c.resolved_at,
       c.resolved_by,
       c.closed_at,
       c.outcome
FROM plimsoll.visible_databases() AS visible (database_id)
CROSS JOIN LATERAL (
    SELECT d.database_id, d.client_id, d.database_name FROM plimsoll.database_record d
    WHERE d.database_id OPERATOR(pg_catalog.=) visible.database_id
    OFFSET 0) d
CROSS JOIN LATERAL (
    SELECT c.conflict_id, pg_catalog.format('%I.%I', t.schema_name, t.table_name) AS relation, c.key, c.kind, c.side,
           c.local_row, c.remote_row, c.base_row, c.reason, c.run_id, c.recorded_at, c.resolution, c.resolved_row,
           c.resolved_at, c.resolved_by, c.closed_at, c.outcome
    FROM plimsoll.conflict_record c
    JOIN plimsoll.table_record t ON t.table_id OPERATOR(pg_catalog.=) c.table_id AND t.unmanaged_at IS NULL
    WHERE c.database_id OPERATOR(pg_catalog.=) d.database_id
    OFFSET 0) c;
COMMENT ON VIEW plimsoll.conflicts IS
    'Keys of two-way tables that were left as they are on both sides, why, and what was decided of them';

CREATE VIEW plimsoll.blocks WITH (security_barrier) AS
SELECT d.client_id,
       d.database_name,
       visible.database_id,
       b.relation,
       b.range,
       b.row_count,
       b.fingerprint,
       b.max_modified
FROM plimsoll.visible_databases() AS visible (database_id)
CROSS JOIN LATERAL (
    SELECT d.database_id, d.client_id, d.database_name FROM plimsoll.database_record d
    WHERE d.database_id OPERATOR(pg_catalog.=) visible.database_id
    OFFSET 0) d
CROSS JOIN LATERAL (
    SELECT pg_catalog.format('%I.%I', t.schema_name, t.table_name) AS relation,
           pg_catalog.int8range(b.first_position, CASE WHEN b.last_position OPERATOR(pg_catalog.<) 9223372036854775807
               THEN b.last_position OPERATOR(pg_catalog.+) 1 END) AS range,
           b.row_count, b.sum AS fingerprint, b.max_modified
    FROM plimsoll.kept_block b
    JOIN plimsoll.table_record t ON t.table_id OPERATOR(pg_catalog.=) b.table_id AND t.unmanaged_at IS NULL
    WHERE b.database_id OPERATOR(pg_catalog.=) d.database_id
    OFFSET 0) b;
COMMENT ON VIEW plimsoll.blocks IS
    'Kept manifests: ranges of versions with row count and digest sum, without the changes that are still pending';

CREATE VIEW plimsoll.acts WITH (security_barrier) AS
SELECT a.act_id,
       a.acted_at,
       a.session_role,
       a.effective_role,
       a.client_address,
       a.application_name,
       a.act,
       d.client_id,
       d.database_name,
       a.database_id,
       a.relation,
       a.arguments,
       a.outcome
FROM plimsoll.act_record a
LEFT JOIN plimsoll.database_record d ON d.database_id OPERATOR(pg_catalog.=) a.database_id;
COMMENT ON VIEW plimsoll.acts IS 'What administrators did: who, when, what, and what came of it';

-- ---------------------------------------------------------------------------------------------------
-- Privileges. Nothing is left to PUBLIC.
-- ---------------------------------------------------------------------------------------------------

REVOKE ALL ON ALL TABLES IN SCHEMA plimsoll FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA plimsoll FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA plimsoll FROM PUBLIC;

-- Of a table that has a column of the type of ours, or a function that takes it, ours could not be changed any more.
DO $$
DECLARE
    row_type pg_catalog.name;
BEGIN
    FOR row_type IN
        SELECT t.typname FROM pg_catalog.pg_type t
        WHERE t.typnamespace OPERATOR(pg_catalog.=) 'plimsoll'::pg_catalog.regnamespace
            AND t.typtype OPERATOR(pg_catalog.=) 'c'
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON TYPE plimsoll.%I FROM PUBLIC', row_type);
    END LOOP;
END
$$;

GRANT SELECT ON plimsoll.replicas, plimsoll.runs, plimsoll.batches, plimsoll.rejected_rows, plimsoll.conflicts,
    plimsoll.databases, plimsoll.tables, plimsoll.blocks TO plimsoll_admin, plimsoll_agent, plimsoll_reader;
GRANT SELECT ON plimsoll.acts TO plimsoll_admin;

-- Reading reports.
GRANT EXECUTE ON FUNCTION
    plimsoll.version(), plimsoll.login_challenge(), plimsoll.login(uuid, bytea), plimsoll.visible_databases(),
    plimsoll.visible_clients(),
    plimsoll.table_versions(uuid), plimsoll.table_version(uuid, text), plimsoll.table_schema(uuid, text),
    plimsoll.range_fingerprint(uuid, text, int8range), plimsoll.manifest(uuid, text, int8range),
    plimsoll.fingerprint(bytea, VARIADIC "any"), plimsoll.range_manifest(uuid, text, int8range, integer),
    plimsoll.batch_history(uuid, text, integer), plimsoll.rejected_keys(uuid, text)
    TO plimsoll_admin, plimsoll_agent, plimsoll_reader;

-- Sending and checking rows.
GRANT EXECUTE ON FUNCTION
    plimsoll.begin_run(uuid, text, text, integer, text, jsonb, jsonb, uuid, boolean), plimsoll.end_run(bigint, text, jsonb, text),
    plimsoll.renew_lease(bigint),
    plimsoll.record_batch(bigint, text, text, bigint, bigint, bigint, text),
    plimsoll.reject_rows(bigint, text, jsonb), plimsoll.clear_rejected(bigint, text, bytea[]),
    plimsoll.clear_rejected(uuid, text), plimsoll.release_hold(uuid, text), plimsoll.forget_side(uuid, text),
    plimsoll.packed_manifest(uuid, text, int8range, integer), plimsoll.packed_keys(uuid, text, bytea),
    plimsoll.packed_rows(uuid, text, bytea), plimsoll.packed_items(uuid, text, bytea),
    plimsoll.packed_ranges(uuid, text, bytea, integer), plimsoll.packed_summaries(uuid, text, bytea),
    plimsoll.packed_sketch(uuid, text, bytea, integer, integer),
    plimsoll.sketch(uuid, text, int8multirange, integer, integer),
    plimsoll.packed_batch(uuid, text, bytea, integer, bigint), plimsoll.packed_lookup(uuid, text, bytea),
    plimsoll.packed_windows(uuid, text, bytea, integer), plimsoll.packed_fingerprints(uuid, text, bytea),
    plimsoll.tail_start(uuid, text, bigint, integer), plimsoll.change_mark(uuid, text),
    plimsoll.download(uuid, text, int8range, integer, bytea),
    plimsoll.upload(uuid, text, bytea, bigint, bigint, integer[], bigint), plimsoll.upload(uuid, text, jsonb, bigint),
    plimsoll.delete_rows(uuid, text, bytea, bigint, bigint), plimsoll.delete_rows(uuid, text, jsonb, bigint),
    plimsoll.delete_range(uuid, text, int8range, bigint), plimsoll.delete_all(uuid, text, bigint),
    plimsoll.two_way_begin(uuid, text, bigint, boolean), plimsoll.two_way_base(uuid, text, bigint),
    plimsoll.two_way_settle(uuid, text, bigint, bigint, bigint), plimsoll.two_way_fetch(uuid, text, bytea, integer),
    plimsoll.two_way_apply(uuid, text, bigint, bigint, bytea, bigint, integer, integer, bigint),
    plimsoll.two_way_close(uuid, text, bigint, bytea),
    plimsoll.resolve_conflict(bigint, text), plimsoll.resolve_conflict(bigint, jsonb),
    plimsoll.rebuild_manifest(uuid, text), plimsoll.fold_manifest(uuid, text), plimsoll.check_manifest(uuid, text)
    TO plimsoll_admin, plimsoll_agent;

-- Administration.
GRANT EXECUTE ON FUNCTION
    plimsoll.manage_table(regclass, name[], name, name, text, name[], name[], boolean, boolean, jsonb, uuid, text[]),
    plimsoll.set_directions(regclass, text[]),
    plimsoll.unmanage_table(regclass), plimsoll.unmanage_table(text),
    plimsoll.protect_table(regclass, boolean), plimsoll.unprotect_table(regclass),
    plimsoll.stamp_versions(regclass), plimsoll.unstamp_versions(regclass),
    plimsoll.register_database(text, text), plimsoll.rotate_token(uuid, interval),
    plimsoll.end_old_tokens(uuid), plimsoll.failed_login_count(), plimsoll.suspend_database(uuid),
    plimsoll.resume_database(uuid), plimsoll.forget_database(uuid), plimsoll.grant_database(uuid, name),
    plimsoll.revoke_database(uuid, name), plimsoll.set_option(uuid, text, text),
    plimsoll.keep_manifest(regclass, boolean), plimsoll.adopt_database(uuid, text, text, bytea)
    TO plimsoll_admin;
