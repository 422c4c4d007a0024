//! The errors of MariaDB and MySQL, as a person needs to hear them.

use mysql_async::Error;
use plimsoll_core::store::{Failure, FailureKind};

use crate::failure::Advise;

/// Codes of the server by what they mean for the run.
const NO_ACCESS: [u16; 4] = [1044, 1045, 1251, 1698];
const NO_DATABASE: [u16; 2] = [1046, 1049];
const NO_TABLE_ACCESS: [u16; 3] = [1142, 1143, 1370];
/// A row that others changed, too many connections, locks, deadlocks, other nodes, shutting down, killed, out of time, memory
/// or room, definitions that changed, a server that may only be read from.
const PASSING: [u16; 47] = [
    3, 5, 20, 1020, 1021, 1026, 1037, 1038, 1040, 1041, 1047, 1053, 1077, 1079, 1114, 1129, 1135, 1152, 1158,
    1159, 1160, 1161, 1180, 1184, 1189, 1190, 1203, 1205, 1206, 1213, 1226, 1290, 1317, 1412, 1615, 1637,
    1689, 1836, 1878, 1927, 1969, 3024, 3100, 3101, 3168, 3169, 4031,
];

/// Whether what the server says is of the moment, and not of what was asked.
pub fn passes(code: u16, state: &str) -> bool {
    PASSING.contains(&code) || state.starts_with("40")
}

/// What an error of the server, or on the way to it, means for the run.
pub fn failure(error: &Error) -> Failure {
    let server = match error {
        Error::Server(server) => server,
        Error::Driver(mysql_async::DriverError::PacketTooLarge) => {
            return told(FailureKind::Table, "a row of the local database exceeds 1 GiB".to_owned());
        }
        error => {
            let message = format!("the connection to the local database: {error}");
            let advice = on_the_way(&message);
            return told(FailureKind::Passing, message).advise(advice);
        }
    };
    let code = server.code;
    let kind = if NO_ACCESS.contains(&code) || NO_DATABASE.contains(&code) {
        FailureKind::Run
    } else if passes(code, &server.state) {
        FailureKind::Passing
    } else {
        FailureKind::Table
    };
    let failure = told(kind, format!("the local database: {} (error {code})", server.message));
    let failure = Failure { sqlstate: Some(server.state.clone()), ..failure };
    match code {
        code if NO_ACCESS.contains(&code) => failure.advise(
            "check the user of mysql = \"..\" under [source], and its password in PLIMSOLL_SOURCE_PASSWORD or password_file",
        ),
        code if NO_DATABASE.contains(&code) => {
            failure.advise("check the database of mysql = \"..\" under [source]")
        }
        code if NO_TABLE_ACCESS.contains(&code) => {
            failure.advise("GRANT SELECT on the table to the user of mysql = \"..\" under [source]")
        }
        1290 | 1836 => failure.advise("the server may only be read from: is it a replica?"),
        1038 => failure.advise("raise sort_buffer_size, or make the index that the client proposes"),
        _ => failure,
    }
}

/// What helps where the server was not reached, or TLS not agreed upon.
fn on_the_way(message: &str) -> &'static str {
    let says = |words: &str| message.contains(words);
    if says("certificate verify failed") && (says("address mismatch") || says("hostname mismatch")) {
        "the certificate is not made for this host: name the one that it is made for in the source's url, or set \
         ssl-mode=verify_ca"
    } else if says("certificate verify failed") {
        "name the authority that signed the server's certificate: ssl-ca=FILE behind the source's url"
    } else if says("does not have this capability") {
        "the server offers no TLS, which the source's url asks for: have it switched on there, or set ssl-mode=disabled"
    } else if says("No such file or directory") {
        "check the files of ssl-ca and socket in the source's url"
    } else {
        "check that the server runs, and host and port of mysql = \"..\" under [source]"
    }
}

/// Whether a statement named an index that is not there.
pub fn is_no_index(failure: &Failure) -> bool {
    failure.message.ends_with("(error 1176)")
}

fn told(kind: FailureKind, message: String) -> Failure {
    Failure::new(kind, message)
}
