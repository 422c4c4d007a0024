//! Where the server is: a libpq URL or key=value list, with libpq's `sslmode` and `sslrootcert`.
//!
//! The driver knows a part of the `sslmode`s only, so both settings are taken out before it reads the rest.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use plimsoll_core::store::Outcome;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::failure::{Advise, run as unusable};

/// How the connection is secured, as libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// TLS only where the server insists.
    Allow,
    /// TLS where the server offers it.
    Prefer,
    /// TLS, whoever the server is.
    Require,
    /// TLS, and the server's certificate is signed by a trusted authority.
    VerifyCa,
    /// TLS, and the certificate is the host's.
    VerifyFull,
}

/// A server's address.
#[derive(Debug, Clone)]
pub struct Address {
    /// What the driver needs.
    pub config: Config,
    /// How the connection is secured.
    pub mode: TlsMode,
    /// Certificates of the authorities that are trusted, instead of the system's.
    pub root_certificates: Option<PathBuf>,
}

impl FromStr for TlsMode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "disable" => TlsMode::Disable,
            "allow" => TlsMode::Allow,
            "prefer" => TlsMode::Prefer,
            "require" => TlsMode::Require,
            "verify-ca" => TlsMode::VerifyCa,
            "verify-full" => TlsMode::VerifyFull,
            _ => return Err(()),
        })
    }
}

impl Address {
    /// Reads an address; passwords and user names left out are taken from `PGPASSWORD`, `PGUSER` and the
    /// login name.
    ///
    /// # Errors
    /// A `Run` failure that never shows a password.
    pub fn parse(text: &str) -> Outcome<Address> {
        let (rest, settings) = take_tls_settings(text.trim());
        // The driver's message names the setting, not its value.
        let mut config = Config::from_str(&rest).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            unusable(format!("the server's url cannot be read{}", cause.unwrap_or_default()))
                .advise("it looks like postgres://user@host:5432/database?sslmode=verify-full")
        })?;
        let mut mode = None;
        let mut root_certificates = None;
        for (name, value) in settings {
            if name == "sslmode" {
                let known = value.parse().map_err(|()| {
                    unusable(format!("sslmode={value} is unknown"))
                        .advise("it is disable, allow, prefer, require, verify-ca or verify-full")
                })?;
                mode = Some(known);
            } else if value == "system" {
                mode.get_or_insert(TlsMode::VerifyFull);
            } else {
                root_certificates = Some(PathBuf::from(value));
            }
        }
        let mut mode = mode.unwrap_or(TlsMode::Prefer);
        if mode == TlsMode::Require && root_certificates.is_some() {
            // As libpq: who names an authority wants it checked.
            mode = TlsMode::VerifyCa;
        }
        fill_in(&mut config);
        if config.get_hosts().is_empty() {
            return Err(unusable("the server's url names no host"));
        }
        config.ssl_mode(match mode {
            TlsMode::Disable | TlsMode::Allow => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            _ => SslMode::Require,
        });
        Ok(Address { config, mode, root_certificates })
    }

    /// Whether the connection may cross a network in the clear, or to whoever answers.
    pub fn is_exposed(&self) -> bool {
        let local = |host: &Host| match host {
            Host::Tcp(name) => {
                name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
            }
            #[cfg(unix)]
            Host::Unix(_) => true,
        };
        !self.config.get_hosts().iter().all(local)
            && matches!(self.mode, TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer)
    }

    /// Host, port and database for messages.
    pub fn display(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "?".to_owned(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or_default();
        format!("{host}:{port}/{database}")
    }
}

fn fill_in(config: &mut Config) {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if config.get_user().is_none()
        && let Some(user) = variable("PGUSER").or_else(|| variable("USER"))
    {
        config.user(user);
    }
    if config.get_password().is_none()
        && let Some(password) = variable("PGPASSWORD")
    {
        config.password(password);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(10));
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(Duration::from_secs(60));
    }
    config.keepalives_idle(Duration::from_secs(30));
    config.application_name(format!("plimsoll/{}", env!("CARGO_PKG_VERSION")));
}

fn is_tls_setting(name: &str) -> bool {
    matches!(name, "sslmode" | "sslrootcert")
}

/// The address without its TLS settings, and these.
fn take_tls_settings(text: &str) -> (String, Vec<(String, String)>) {
    let mut settings = Vec::new();
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        let Some((start, query)) = text.split_once('?') else { return (text.to_owned(), settings) };
        let mut kept = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((name, value)) if is_tls_setting(name) => {
                    settings.push((name.to_owned(), percent_decoded(value)));
                }
                _ => kept.push(part),
            }
        }
        let mark = if kept.is_empty() { "" } else { "?" };
        return (format!("{start}{mark}{}", kept.join("&")), settings);
    }
    let mut kept = String::new();
    for (name, value, written) in key_values(text) {
        if is_tls_setting(&name) {
            settings.push((name, value));
        } else {
            kept.push_str(&written);
            kept.push(' ');
        }
    }
    (kept.trim_end().to_owned(), settings)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => std::str::from_utf8(&[*high, *low])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The settings of a key=value list: name, value, and both as written.
fn key_values(text: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let name_end = rest.find('=').unwrap_or(rest.len());
        let name = rest[..name_end].trim().to_owned();
        let after = rest.get(name_end + 1..).unwrap_or_default();
        let start = after.trim_start();
        let (mut value, mut quoted, mut escaped) = (String::new(), false, false);
        let mut end = start.len();
        for (at, character) in start.char_indices() {
            match character {
                _ if escaped => {
                    value.push(character);
                    escaped = false;
                }
                '\\' => escaped = true,
                '\'' => quoted = !quoted,
                c if c.is_whitespace() && !quoted => {
                    end = at;
                    break;
                }
                c => value.push(c),
            }
        }
        let length = rest.len() - start.len() + end;
        found.push((name, value, rest[..length].to_owned()));
        rest = rest[length..].trim_start();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Address {
        Address::parse(text).expect(text)
    }

    #[test]
    fn every_sslmode_is_known_in_both_forms() {
        for (name, mode) in [
            ("disable", TlsMode::Disable),
            ("allow", TlsMode::Allow),
            ("prefer", TlsMode::Prefer),
            ("require", TlsMode::Require),
            ("verify-ca", TlsMode::VerifyCa),
            ("verify-full", TlsMode::VerifyFull),
        ] {
            assert_eq!(parsed(&format!("postgres://u@h/d?sslmode={name}")).mode, mode);
            assert_eq!(parsed(&format!("host=h user=u dbname=d sslmode={name}")).mode, mode);
        }
        assert_eq!(parsed("postgresql://u@h/d").mode, TlsMode::Prefer);
        let failure = Address::parse("postgres://u:geheim@h/d?sslmode=on").expect_err("unknown");
        assert!(failure.message.contains("sslmode=on"));
    }

    #[test]
    fn an_authority_is_checked_where_it_is_named() {
        let address = parsed("postgres://u@h/d?sslmode=require&sslrootcert=%2Fetc%2Fmy%20ca.pem");
        assert_eq!(address.mode, TlsMode::VerifyCa);
        assert_eq!(address.root_certificates, Some(PathBuf::from("/etc/my ca.pem")));
        let address = parsed("host=h user=u sslrootcert='/etc/my ca.pem' sslmode=verify-full port=6000");
        assert_eq!(address.root_certificates, Some(PathBuf::from("/etc/my ca.pem")));
        assert_eq!(address.config.get_ports(), [6000]);
        assert_eq!(parsed("host=h user=u sslrootcert=system").mode, TlsMode::VerifyFull);
    }

    #[test]
    fn the_rest_reaches_the_driver() {
        let address =
            parsed("postgres://u:p%40ss@db.example:5433/replicas?sslmode=require&connect_timeout=3");
        assert_eq!(address.config.get_user(), Some("u"));
        assert_eq!(address.config.get_password(), Some(&b"p@ss"[..]));
        assert_eq!(address.config.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(address.display(), "db.example:5433/replicas");
        let quoted = parsed("host=h user=u password='a b\\'' dbname=d sslmode=disable");
        assert_eq!(quoted.config.get_dbname(), Some("d"));
    }

    #[test]
    fn passwords_stay_out_of_messages() {
        for text in ["postgres://u:geheim@h:port/d", "host=h password=geheim nonsense=1", "geheim"] {
            let failure = Address::parse(text).expect_err(text);
            assert!(!failure.to_string().contains("geheim"), "{failure}");
        }
    }

    #[test]
    fn addresses_that_cross_a_network_in_the_clear_are_known() {
        assert!(parsed("postgres://u@db.example/d").is_exposed());
        assert!(!parsed("postgres://u@db.example/d?sslmode=require").is_exposed());
        for local in ["localhost", "127.0.0.1", "%2Frun%2Fpostgresql"] {
            assert!(!parsed(&format!("postgres://u@{local}/d?sslmode=disable")).is_exposed(), "{local}");
        }
    }
}
