//! Where a MariaDB or MySQL server is, from a URL.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use mysql_async::{Opts, OptsBuilder, SslOpts};
use plimsoll_core::store::Outcome;

use crate::failure::{Advise, run as no_run};

/// The largest value that is taken, as the server's own limit has it.
const MAX_PACKET: usize = 1 << 30;
/// Statements that are kept prepared.
const STATEMENTS: usize = 512;
/// How often a silent connection is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What each session is set to, whatever the server's own settings are: no mode that changes what is read, UTC, UTF-8, no
/// limit to what a statement answers, and a time for writers that hold a table's definition.
const SESSION: [&str; 3] = [
    "SET NAMES utf8mb4",
    "SET SESSION sql_mode = '', time_zone = '+00:00', sql_select_limit = 18446744073709551615, \
     sql_big_selects = 1, max_sort_length = 32768, net_write_timeout = 600, wait_timeout = 28800, lock_wait_timeout = 10",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
];

/// TLS, as the setting `ssl-mode` of MySQL's own programs names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SslMode {
    Disabled,
    Required,
    VerifyCa,
    VerifyIdentity,
}

/// An address, and what to warn of.
#[derive(Debug)]
pub struct Address {
    /// How to connect.
    pub opts: Opts,
    /// The database.
    pub database: String,
    /// Whether rows travel to another machine for everybody on the way to read.
    pub is_open: bool,
}

/// Reads a URL: `mysql://user@host:port/database`, with `ssl-mode`, `ssl-ca` and `socket` behind a question mark.
///
/// # Errors
/// A `Run` failure that names the part of the URL that is wrong.
pub fn parse(url: &str, password: Option<&str>) -> Outcome<Address> {
    let wrong = |what: String| {
        no_run(format!("the source's url {what}")).advise("it is mysql://user@host:port/database")
    };
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let base = match base.strip_prefix("mariadb://") {
        Some(rest) => format!("mysql://{rest}"),
        None => base.to_owned(),
    };
    let (mut mode, mut authority, mut others) = (None, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("ssl-mode" | "sslmode", value) => mode = Some(ssl_mode(value).map_err(wrong)?),
            ("ssl-ca" | "sslrootcert", value) => authority = Some(PathBuf::from(value)),
            ("socket", _) => others.push(pair),
            (name, _) => return Err(wrong(format!("has a setting {name} that is not known"))),
        }
    }
    // The reason may hold the URL, and that a password.
    let opts = Opts::from_url(&format!("{base}?{}", others.join("&")))
        .map_err(|_| wrong("is none of this form".to_owned()))?;
    let database = opts.db_name().unwrap_or_default().to_owned();
    if database.is_empty() {
        return Err(wrong("names no database".to_owned()));
    }
    let is_local = opts.socket().is_some() || is_loopback(opts.ip_or_hostname());
    let mode = mode.unwrap_or(match (is_local, &authority) {
        (_, Some(_)) => SslMode::VerifyIdentity,
        (_, None) => SslMode::Disabled,
    });
    let ssl = (mode != SslMode::Disabled && opts.socket().is_none()).then(|| {
        let authorities = authority.into_iter().map(Into::into).collect();
        SslOpts::default()
            .with_root_certs(authorities)
            .with_danger_accept_invalid_certs(mode == SslMode::Required)
            .with_danger_skip_domain_validation(mode != SslMode::VerifyIdentity)
    });
    let is_open = ssl.is_none() && !is_local;
    let mut builder = OptsBuilder::from_opts(opts)
        .prefer_socket(false)
        .ssl_opts(ssl)
        .max_allowed_packet(Some(MAX_PACKET))
        .stmt_cache_size(STATEMENTS)
        .tcp_keepalive(Some(KEEPALIVE))
        .init(SESSION.map(str::to_owned).to_vec());
    if let Some(password) = password {
        builder = builder.pass(Some(password));
    }
    Ok(Address { opts: builder.into(), database, is_open })
}

fn ssl_mode(text: &str) -> Result<SslMode, String> {
    match text.to_ascii_uppercase().replace('-', "_").as_str() {
        "DISABLED" | "DISABLE" => Ok(SslMode::Disabled),
        "REQUIRED" | "REQUIRE" => Ok(SslMode::Required),
        "VERIFY_CA" => Ok(SslMode::VerifyCa),
        "VERIFY_IDENTITY" | "VERIFY_FULL" => Ok(SslMode::VerifyIdentity),
        _ => Err("has another ssl-mode than disabled, required, verify_ca or verify_identity".to_owned()),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let address = parse("mysql://reader@db.example:3307/shop", Some("p@ss")).expect("an address");
        assert_eq!(address.opts.ip_or_hostname(), "db.example");
        assert_eq!((address.opts.tcp_port(), address.opts.pass()), (3307, Some("p@ss")));
        assert_eq!((address.opts.user(), address.database.as_str()), (Some("reader"), "shop"));
        assert!(address.is_open && address.opts.ssl_opts().is_none());
        let local = parse("mariadb://reader:secret@127.0.0.1/shop", None).expect("an address");
        assert!(!local.is_open && local.opts.pass() == Some("secret") && local.opts.tcp_port() == 3306);
        let socket = parse("mysql://reader@localhost/shop?socket=/run/s.sock", None).expect("an address");
        assert_eq!(socket.opts.socket(), Some("/run/s.sock"));
    }

    #[test]
    fn tls_is_as_strict_as_it_is_named() {
        let ssl = |query: &str| {
            let address = parse(&format!("mysql://r@db.example/shop?{query}"), None).expect("an address");
            assert!(!address.is_open, "{query}");
            let ssl = address.opts.ssl_opts().expect("TLS").clone();
            (ssl.accept_invalid_certs(), ssl.skip_domain_validation(), ssl.root_certs().len())
        };
        assert_eq!(ssl("ssl-mode=required"), (true, true, 0));
        assert_eq!(ssl("ssl-mode=VERIFY_CA&ssl-ca=/ca.pem"), (false, true, 1));
        assert_eq!(ssl("ssl-mode=verify-identity"), (false, false, 0));
        assert_eq!(ssl("ssl-ca=/ca.pem"), (false, false, 1));
    }

    #[test]
    fn what_is_wrong_is_named_without_the_password() {
        for (url, named) in [
            ("mysql://r:hidden@db.example", "names no database"),
            ("mysql://r:hidden@db.example/", "names no database"),
            ("mysql://r:hidden@db.example/shop?ssl-mode=maybe", "ssl-mode"),
            ("mysql://r:hidden@db.example/shop?compress=1", "compress"),
            ("http://r:hidden@db.example/shop", "none of this form"),
        ] {
            let failure = parse(url, None).expect_err(url).to_string();
            assert!(failure.contains(named) && !failure.contains("hidden"), "{failure}");
        }
    }
}
