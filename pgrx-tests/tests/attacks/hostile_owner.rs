//! A table that the attacker owns was handed over, and others send rows to it: its code runs in their sessions, with
//! its owner's rights, and must get nothing of theirs.

use crate::attempt::{Outcome, Trials};
use crate::spy;
use crate::world::{Who, World};

/// Where the owner puts code, what the server fills in, and which rows run it.
struct Trap {
    name: &'static str,
    sql: &'static str,
    server_columns: &'static str,
}

const TRAPS: [Trap; 13] = [
    Trap {
        name: "a trigger before each row",
        sql: "CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON maker.trap
        FOR EACH ROW EXECUTE FUNCTION maker.fire()",
        server_columns: "",
    },
    Trap {
        name: "a trigger after each row",
        sql: "CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON maker.trap
        FOR EACH ROW EXECUTE FUNCTION maker.fire()",
        server_columns: "",
    },
    Trap {
        name: "a trigger before the statement",
        sql: "CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON maker.trap
        EXECUTE FUNCTION maker.fire()",
        server_columns: "",
    },
    Trap {
        name: "a trigger after the statement",
        sql: "CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON maker.trap
        REFERENCING NEW TABLE AS n EXECUTE FUNCTION maker.fire()",
        server_columns: "single",
    },
    Trap {
        name: "a trigger that is deferred",
        sql: "CREATE CONSTRAINT TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON maker.trap
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION maker.fire()",
        server_columns: "",
    },
    Trap {
        name: "a condition of a trigger",
        sql: "CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON maker.trap
        FOR EACH ROW WHEN (maker.yes()) EXECUTE FUNCTION maker.fire()",
        server_columns: "",
    },
    Trap {
        name: "a check",
        sql: "ALTER TABLE maker.trap ADD CHECK (maker.is_fine(name))",
        server_columns: "",
    },
    Trap {
        name: "a default",
        sql: "ALTER TABLE maker.trap ALTER extra SET DEFAULT maker.word()",
        server_columns: "{extra}",
    },
    Trap {
        name: "an index on an expression",
        sql: "CREATE INDEX trap_word ON maker.trap (maker.same(name))",
        server_columns: "",
    },
    Trap {
        name: "an index of some rows",
        sql: "CREATE INDEX trap_some ON maker.trap (id) WHERE maker.is_fine(name)",
        server_columns: "",
    },
    Trap {
        name: "a generated column",
        sql: "ALTER TABLE maker.trap ADD grown text GENERATED ALWAYS AS (maker.same(name)) STORED",
        server_columns: "{grown}",
    },
    Trap {
        name: "a policy",
        sql: "CREATE POLICY p ON maker.trap USING (maker.yes()) WITH CHECK (maker.yes());
        ALTER TABLE maker.trap ENABLE ROW LEVEL SECURITY; ALTER TABLE maker.trap FORCE ROW LEVEL SECURITY",
        server_columns: "silent",
    },
    Trap {
        name: "a rule",
        sql: "CREATE RULE r AS ON INSERT TO maker.trap DO ALSO SELECT maker.tries('rule')",
        server_columns: "",
    },
];

pub fn attack(trials: &mut Trials) {
    for trap in &TRAPS {
        trials.touching(
            &format!("{} of a table that others send rows to", trap.name),
            &["registrations", "catalogue", "B's history"],
            |world| send_into(world, trap),
        );
    }
    trials.touching("a domain of a table that others send rows to", &["registrations", "catalogue", "B's history"], |world| {
        let trap = Trap {
            name: "a domain",
            sql: "CREATE DOMAIN maker.checked AS text CHECK (maker.is_fine(VALUE)); ALTER TABLE maker.trap ALTER name TYPE maker.checked",
            server_columns: "",
        };
        send_into(world, &trap)
    });
}

/// The maker's table with the trap, handed over by an admin.
fn hand_over(world: &mut World, trap: &Trap) -> Result<(), String> {
    let mut maker = world.connect(Who::Maker);
    maker.must(&world.filled(&spy::code()));
    maker.must(
        "CREATE TABLE maker.trap (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, name text, extra text,
             version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id))",
    );
    let sql = match trap.server_columns {
        "single" => trap.sql.replace("INSERT OR UPDATE OR DELETE", "INSERT"),
        _ => trap.sql.to_owned(),
    };
    // A table with a rule is refused; one that gets it later is not.
    let is_rule = sql.contains("CREATE RULE");
    if !is_rule {
        maker.must(&sql);
    }
    let server_columns = if trap.server_columns.starts_with('{') { trap.server_columns } else { "{}" };
    world.admin(&format!(
        "SELECT plimsoll.manage_table('maker.trap', version_column => 'version', server_columns => '{server_columns}')"
    ));
    if is_rule {
        maker.must(&sql);
    }
    Ok(())
}

/// B sends rows, changes and deletes them; so does an admin. Then the table is taken back.
fn send_into(world: &mut World, trap: &Trap) -> Outcome {
    hand_over(world, trap)?;
    world.admin(
        "TRUNCATE maker.heard; UPDATE plimsoll.lease_record SET lease_until = NULL WHERE database_id = '{B}'",
    );
    let mut victim = world.connect(Who::Shared);
    let mut outcome = Ok(());
    for sql in [
        "SELECT inserted FROM plimsoll.upload('{B}', 'maker.trap', '[{\"id\": 1, \"name\": \"one\", \"version\": 1},
             {\"id\": 2, \"name\": \"two\", \"version\": 2}]'::jsonb)",
        "SELECT updated FROM plimsoll.upload('{B}', 'maker.trap', '[{\"id\": 1, \"name\": \"new\", \"version\": 3}]'::jsonb)",
        "SELECT plimsoll.table_version('{B}', 'maker.trap')",
        "SELECT plimsoll.delete_rows('{B}', 'maker.trap', '[{\"key\": {\"id\": 1}}]'::jsonb)",
    ] {
        let sql = world.filled(sql);
        victim.log_in(&world.b);
        let before = victim.must(spy::SESSION);
        // The trap may make the call fail; it may not make it lend anything.
        let ended = victim.run(&sql);
        if ended.is_ok() {
            let after = victim.must(spy::SESSION);
            if after != before {
                outcome = Err(format!("the session is {after:?} instead of {before:?}"));
            }
            victim.must("COMMIT");
        } else {
            victim.must("ROLLBACK");
        }
        // The victim may see what is its own.
        world.leaked();
        let before = world.session_of_admin();
        let ended = world.superuser.batch_execute(&sql);
        let _ = ended;
        let after = world.session_of_admin();
        if after != before {
            outcome = Err(format!("the admin's session is {after:?} instead of {before:?}"));
        }
    }
    let heard = spy::judged(world, !trap.name.contains("policy") && !trap.name.contains("rule"));
    world.admin(
        "SELECT plimsoll.unmanage_table('maker.trap'::text);
         UPDATE plimsoll.lease_record SET lease_until = 'tomorrow' WHERE database_id = '{B}'",
    );
    outcome.and(heard)
}
