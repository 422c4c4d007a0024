//! What SQLSTATEs of Postgres say.

/// A foreign key does not hold: what a row refers to is not there, or others refer to a row.
pub const FOREIGN_KEY: &str = "23503";

/// Whether what Postgres says with this SQLSTATE says nothing of what was asked, but of the moment: the connection, what
/// the server has no room or no time for, other transactions, a server that goes, comes or may only be read from.
pub fn passes(sqlstate: &str) -> bool {
    match sqlstate {
        // A constraint that is looked at with the transaction's end.
        "40002" => false,
        // Waiting too long, also for this client, and what was given up to others.
        "25P03" | "25P04" | "55P03" | "57000" | "57014" | "72000" => true,
        "25006" => true,
        code => ["08", "40", "53", "57P"].iter().any(|class| code.starts_with(class)),
    }
}

#[cfg(test)]
mod tests {
    use super::passes;

    #[test]
    fn what_is_of_the_moment_passes() {
        let of_the_moment = [
            "08000", "08003", "08006", "08P01", "25006", "25P03", "25P04", "40000", "40001", "40003",
            "40P01", "53000", "53100", "53200", "53300", "53400", "55P03", "57000", "57014", "57P01",
            "57P02", "57P03", "57P04", "57P05", "72000",
        ];
        for code in of_the_moment {
            assert!(passes(code), "{code}");
        }
        let of_what_was_asked = [
            "0A000", "22001", "22P02", "23502", "23503", "23505", "23514", "25P02", "28000", "40002",
            "42501", "42703", "42804", "42P01", "54000", "55000", "55006", "58P01", "P0001", "XX000",
        ];
        for code in of_what_was_asked {
            assert!(!passes(code), "{code}");
        }
    }
}
