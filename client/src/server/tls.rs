//! TLS as the mode asks for.

use std::path::PathBuf;

use native_tls::{Certificate, TlsConnector};
use plimsoll_core::store::Outcome;
use postgres_native_tls::MakeTlsConnector;

use super::address::{Address, TlsMode};
use crate::failure::{Advise, run as unusable};

/// A connector for the address.
///
/// # Errors
/// A `Run` failure where the named certificates cannot be read.
pub fn connector(address: &Address) -> Outcome<MakeTlsConnector> {
    let mut builder = TlsConnector::builder();
    match address.mode {
        TlsMode::VerifyFull => {}
        TlsMode::VerifyCa => {
            builder.danger_accept_invalid_hostnames(true);
        }
        _ => {
            builder.danger_accept_invalid_certs(true).danger_accept_invalid_hostnames(true);
        }
    }
    let named = address.root_certificates.is_some();
    if let Some(path) = address.root_certificates.clone().or_else(own_authority) {
        let unreadable = |why: String| {
            unusable(format!("the certificates in {} cannot be read: {why}", path.display()))
                .advise("sslrootcert names a PEM file with the authority's certificate")
        };
        let pem = match std::fs::read(&path) {
            Ok(pem) => Some(pem),
            Err(_) if !named => None,
            Err(error) => return Err(unreadable(error.to_string())),
        };
        if let Some(pem) = pem {
            builder.disable_built_in_roots(true);
            let certificates = Certificate::stack_from_pem(&pem);
            let certificates = certificates.map_err(|error| unreadable(error.to_string()))?;
            if certificates.is_empty() {
                return Err(unreadable("there is none".to_owned()));
            }
            for certificate in certificates {
                builder.add_root_certificate(certificate);
            }
        }
    }
    let connector = builder.build().map_err(|error| unusable(format!("TLS cannot be set up: {error}")))?;
    Ok(MakeTlsConnector::new(connector))
}

/// Where libpq looks for the authority's certificate.
fn own_authority() -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os("HOME")?).join(".postgresql/root.crt"))
}
