//! Where the server is: a libpq URL or key=value list, with libpq's `sslmode` and `sslrootcert`.
//!
//! The driver knows a part of the `sslmode`s only, so both settings are taken out before it reads the rest. One
//! `sslmode` means more than to libpq: `require` checks the certificate as `verify-full` does.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use plimsoll_core::store::Outcome;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::failure::{Advise, run as unusable};

/// How the connection is secured: libpq's `sslmode`s; who requires TLS gets it from the right server or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// TLS only where the server insists, whoever it is.
    Allow,
    /// TLS where the server offers it, whoever it is.
    Prefer,
    /// TLS, and the server's certificate is signed by a trusted authority.
    VerifyCa,
    /// TLS, and the certificate is the host's.
    VerifyFull,
}

/// Who may vouch for the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorities {
    /// Those in `~/.postgresql/root.crt`, as libpq; where there is no such file the system's.
    Usual,
    /// The system's.
    System,
    /// Those whose certificates are in a PEM file.
    File(PathBuf),
}

/// A server's address.
#[derive(Debug, Clone)]
pub struct Address {
    /// What the driver needs.
    pub config: Config,
    /// How the connection is secured.
    pub mode: TlsMode,
    /// Whose signatures are trusted.
    pub authorities: Authorities,
}

impl FromStr for TlsMode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "disable" => TlsMode::Disable,
            "allow" => TlsMode::Allow,
            "prefer" => TlsMode::Prefer,
            "verify-ca" => TlsMode::VerifyCa,
            "require" | "verify-full" => TlsMode::VerifyFull,
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
        Self::parse_with(text, &|name| std::env::var(name).ok())
    }

    /// As [`parse`](Self::parse), for another server than the shared one: `password` in place of `PGPASSWORD`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn of_source(text: &str, password: Option<String>) -> Outcome<Address> {
        Self::parse_with(text, &|name| match name {
            "PGPASSWORD" => password.clone(),
            name => std::env::var(name).ok(),
        })
    }

    fn parse_with(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Outcome<Address> {
        let (rest, settings) = take_tls_settings(text.trim());
        // The driver's message names the setting, not its value.
        let mut config = Config::from_str(&rest).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            unusable(format!("the server's url cannot be read{}", cause.unwrap_or_default()))
                .advise("it looks like postgres://user@host:5432/database?sslmode=verify-full")
        })?;
        let (mut mode, mut authorities) = (None, Authorities::Usual);
        for (name, value) in settings {
            if name == "sslmode" {
                let known = value.parse().map_err(|()| {
                    unusable(format!("sslmode={value} is unknown"))
                        .advise("it is disable, allow, prefer, require, verify-ca or verify-full")
                })?;
                mode = Some(known);
            } else if value == "system" {
                authorities = Authorities::System;
            } else {
                authorities = Authorities::File(PathBuf::from(value));
            }
        }
        // Who names an authority wants it asked.
        let mode = mode.unwrap_or(match authorities {
            Authorities::Usual => TlsMode::Prefer,
            _ => TlsMode::VerifyFull,
        });
        fill_in(&mut config, variable);
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(unusable("the server's url names no host"));
        }
        // As libpq: a socket of this machine has no TLS, whatever is asked for. An address given beside its name is
        // where the connection goes.
        #[cfg(unix)]
        let mode = match config.get_hosts() {
            hosts if !config.get_hostaddrs().is_empty() || hosts.is_empty() => mode,
            hosts if hosts.iter().all(|host| matches!(host, Host::Unix(_))) => TlsMode::Disable,
            _ => mode,
        };
        config.ssl_mode(match mode {
            TlsMode::Disable | TlsMode::Allow => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        Ok(Address { config, mode, authorities })
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
        // An address given beside the name is where the connection goes.
        let is_local = match self.config.get_hostaddrs() {
            [] => self.config.get_hosts().iter().all(local),
            addresses => addresses.iter().all(std::net::IpAddr::is_loopback),
        };
        !is_local && matches!(self.mode, TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer)
    }

    /// The warning about a connection that [is exposed](Self::is_exposed).
    pub fn exposure(&self) -> String {
        format!(
            "nothing protects the connection to {} for certain: others on the way could read and change what is sent, \
             or answer in the server's place; add sslmode=verify-full to the url",
            self.display()
        )
    }

    /// The name or address by which the server is known.
    pub fn host(&self) -> String {
        match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => self.config.get_hostaddrs().first().map_or_else(|| "?".to_owned(), ToString::to_string),
        }
    }

    /// Host, port and database for messages.
    pub fn display(&self) -> String {
        let host = self.host();
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or_default();
        format!("{host}:{port}/{database}")
    }
}

fn fill_in(config: &mut Config, variable: &dyn Fn(&str) -> Option<String>) {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
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
            ("require", TlsMode::VerifyFull),
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
    fn an_authority_is_asked_where_it_is_named() {
        let address = parsed("postgres://u@h/d?sslmode=verify-ca&sslrootcert=%2Fetc%2Fmy%20ca.pem");
        assert_eq!(address.mode, TlsMode::VerifyCa);
        assert_eq!(address.authorities, Authorities::File(PathBuf::from("/etc/my ca.pem")));
        let address = parsed("host=h user=u sslrootcert='/etc/my ca.pem' sslmode=verify-full port=6000");
        assert_eq!(address.authorities, Authorities::File(PathBuf::from("/etc/my ca.pem")));
        assert_eq!(address.config.get_ports(), [6000]);
        for named in ["sslrootcert=system", "sslrootcert=ca.pem"] {
            assert_eq!(parsed(&format!("host=h user=u {named}")).mode, TlsMode::VerifyFull);
            assert_eq!(parsed(&format!("host=h user=u {named} sslmode=prefer")).mode, TlsMode::Prefer);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_of_this_machine_needs_no_tls() {
        assert_eq!(parsed("postgres://u@%2Frun%2Fpostgresql/d?sslmode=verify-full").mode, TlsMode::Disable);
        assert_eq!(parsed("host=/run/postgresql,h user=u sslmode=require").mode, TlsMode::VerifyFull);
        let beside = parsed("host=/run/postgresql hostaddr=192.0.2.7 user=u sslmode=require");
        assert_eq!(beside.mode, TlsMode::VerifyFull, "the connection goes to the address");
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
        for safe in ["require", "verify-ca", "verify-full"] {
            assert!(!parsed(&format!("postgres://u@db.example/d?sslmode={safe}")).is_exposed());
        }
        assert!(parsed("host=localhost,db.example user=u").is_exposed());
        assert!(parsed("host=localhost hostaddr=192.0.2.7 user=u").is_exposed());
        assert!(!parsed("host=db.example hostaddr=127.0.0.1 user=u").is_exposed());
        for local in ["localhost", "127.0.0.1", "127.3.2.1", "[::1]", "%2Frun%2Fpostgresql"] {
            assert!(!parsed(&format!("postgres://u@{local}/d?sslmode=disable")).is_exposed(), "{local}");
        }
    }
}
