-- Plimsoll 0.1.0. Written by hand: every object, privilege and setting of the extension is in this file.
\echo Use "CREATE EXTENSION plimsoll" to load this file. \quit

-- ---------------------------------------------------------------------------------------------------
-- Group roles. Roles belong to the whole cluster, so another of its databases may have made them.
-- ---------------------------------------------------------------------------------------------------

DO $$
DECLARE
    wanted pg_catalog.record;
    found pg_catalog.record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('plimsoll_admin', 'Plimsoll: manages tables and databases'),
            ('plimsoll_agent', 'Plimsoll: sends and checks the rows of the databases granted to it'),
            ('plimsoll_reader', 'Plimsoll: reads reports on the databases granted to it')) AS roles (name, purpose)
    LOOP
        SELECT r.oid, r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication
                   OR r.rolbypassrls AS can_act,
               pg_catalog.shobj_description(r.oid, 'pg_authid') OPERATOR(pg_catalog.=) wanted.purpose AS ours,
               EXISTS (SELECT FROM pg_catalog.pg_auth_members m
                       WHERE m.roleid OPERATOR(pg_catalog.=) r.oid OR m.member OPERATOR(pg_catalog.=) r.oid) AS has_members
          INTO found
          FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) wanted.name::pg_catalog.name;
        IF NOT FOUND THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted.name);
            EXECUTE pg_catalog.format('COMMENT ON ROLE %I IS %L', wanted.name, wanted.purpose);
        ELSIF (found.can_act OR (found.has_members AND found.ours IS NOT TRUE))
            AND pg_catalog.current_setting('plimsoll.adopt_roles', true) IS DISTINCT FROM 'on'
        THEN
            RAISE EXCEPTION USING
                ERRCODE = 'duplicate_object',
                MESSAGE = pg_catalog.format('role "%s" exists already and was not made by Plimsoll', wanted.name),
                DETAIL = 'It may log in, has attributes of its own, or has members that would gain access.',
                HINT = 'Rename or drop it, or SET plimsoll.adopt_roles = on to use it as it is.';
        END IF;
    END LOOP;
END
$$;

CREATE SCHEMA plimsoll;
REVOKE ALL ON SCHEMA plimsoll FROM PUBLIC;
GRANT USAGE ON SCHEMA plimsoll TO plimsoll_admin, plimsoll_agent, plimsoll_reader;

-- ---------------------------------------------------------------------------------------------------
-- Tables. Nobody but the extension's owner has privileges on them; people read the views.
-- ---------------------------------------------------------------------------------------------------

CREATE TABLE plimsoll.database_record (
    database_id uuid PRIMARY KEY,
    client_id text NOT NULL CHECK (client_id OPERATOR(pg_catalog.<>) ''),
    database_name text NOT NULL CHECK (database_name OPERATOR(pg_catalog.<>) ''),
    fingerprint_key bytea NOT NULL CHECK (pg_catalog.octet_length(fingerprint_key) OPERATOR(pg_catalog.=) 32),
    stored_key bytea NOT NULL CHECK (pg_catalog.octet_length(stored_key) OPERATOR(pg_catalog.=) 32),
    registered_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    registered_by name NOT NULL,
    suspended_at timestamptz,
    settings jsonb NOT NULL DEFAULT '{}',
    UNIQUE (client_id, database_name)
);

CREATE TABLE plimsoll.grant_record (
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    role_name name NOT NULL,
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
    version_column name NOT NULL,
    modified_column name,
    version_scope text NOT NULL,
    server_columns name[] NOT NULL,
    superuser_allowed boolean NOT NULL DEFAULT false,
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
    idle_runs bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

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
    rejected bigint NOT NULL DEFAULT 0
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
    finished_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
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
    PRIMARY KEY (database_id, table_id)
);

-- Rows deleted or set back per hour: what the guard against destruction counts.
CREATE TABLE plimsoll.guard_record (
    database_id uuid NOT NULL REFERENCES plimsoll.database_record ON DELETE CASCADE,
    table_id integer NOT NULL REFERENCES plimsoll.table_record ON DELETE CASCADE,
    hour timestamptz NOT NULL,
    touched bigint NOT NULL,
    largest bigint NOT NULL,
    PRIMARY KEY (database_id, table_id, hour)
);

CREATE SEQUENCE plimsoll.run_number;
-- A sequence, because it survives the rollback that a failed login ends in.
CREATE SEQUENCE plimsoll.failed_logins;

SELECT pg_catalog.pg_extension_config_dump(('plimsoll.' OPERATOR(pg_catalog.||) name)::pg_catalog.regclass, '')
FROM pg_catalog.unnest(ARRAY['database_record', 'grant_record', 'table_record', 'table_record_table_id_seq',
    'column_record', 'lease_record', 'run_record', 'batch_record', 'batch_record_batch_id_seq', 'rejected_record',
    'replica_record', 'guard_record', 'run_number', 'failed_logins']) AS kept (name);

