//! TLS as the mode asks for.

use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use native_tls::{Certificate, Protocol, TlsConnector};
use plimsoll_core::store::{Failure, Outcome};
use postgres_native_tls::{MakeTlsConnector, TlsStream};
use tokio_postgres::Socket;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use super::address::{Address, Authorities, TlsMode};
use crate::failure::{Advise, passing, run as unusable};

/// A connector for the address.
///
/// # Errors
/// A `Run` failure where the named certificates cannot be read.
pub fn connector(address: &Address) -> Outcome<MakeTlsConnector> {
    let mut builder = TlsConnector::builder();
    builder.min_protocol_version(Some(Protocol::Tlsv12));
    match address.mode {
        TlsMode::VerifyFull => {}
        TlsMode::VerifyCa => {
            builder.danger_accept_invalid_hostnames(true);
        }
        TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer => {
            builder.danger_accept_invalid_certs(true).danger_accept_invalid_hostnames(true);
        }
    }
    if let Some(path) = trusted(address) {
        let unreadable = |why: String| {
            unusable(format!("the certificates in {} cannot be read: {why}", path.display()))
                .advise("sslrootcert names a PEM file with the authority's certificate")
        };
        let pem = std::fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
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
    let connector = builder.build().map_err(|error| unusable(format!("TLS cannot be set up: {error}")))?;
    Ok(MakeTlsConnector::new(connector))
}

/// Whether TLS is taken where the server offers it, from whoever it is.
pub fn is_optional(address: &Address) -> bool {
    address.mode == TlsMode::Prefer && trusted(address).is_none()
}

/// A connector that is made when the server has offered TLS: making it reads the system's certificates, which takes
/// longer than the rest of a connection.
#[derive(Debug, Clone)]
pub struct OnOffer(pub Address);

/// The same for a host.
#[derive(Debug)]
pub struct OnOfferTo {
    address: Address,
    host: String,
}

type Problem = Box<dyn Error + Send + Sync>;

impl MakeTlsConnect<Socket> for OnOffer {
    type Stream = TlsStream<Socket>;
    type TlsConnect = OnOfferTo;
    type Error = Problem;

    fn make_tls_connect(&mut self, host: &str) -> Result<OnOfferTo, Problem> {
        Ok(OnOfferTo { address: self.0.clone(), host: host.to_owned() })
    }
}

impl TlsConnect<Socket> for OnOfferTo {
    type Stream = TlsStream<Socket>;
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<TlsStream<Socket>, Problem>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let mut connector = connector(&self.address)?;
            let connector = MakeTlsConnect::<Socket>::make_tls_connect(&mut connector, &self.host)?;
            Ok(connector.connect(socket).await?)
        })
    }
}

/// The file with the authorities' certificates; `None` for the system's.
fn trusted(address: &Address) -> Option<PathBuf> {
    match &address.authorities {
        Authorities::File(path) => Some(path.clone()),
        Authorities::System => None,
        Authorities::Usual => {
            let path = PathBuf::from(std::env::var_os("HOME")?).join(".postgresql/root.crt");
            path.exists().then_some(path)
        }
    }
}

/// What a failure of TLS means, by the texts of the driver and of OpenSSL; `None` where it was none of TLS.
pub fn explain(reason: &str, address: &Address) -> Option<Failure> {
    let text = reason.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let host = address.host();
    let (message, hint) = if says(&["does not support tls"]) {
        (
            format!("the server {} offers no TLS, which the url asks for", address.display()),
            "have TLS switched on there (ssl = on in postgresql.conf); without it anybody on the way can read and \
             change what is sent, which only sslmode=disable permits"
                .to_owned(),
        )
    } else if says(&["hostname mismatch", "ip address mismatch"]) {
        (
            format!("the certificate of the server {} is not made for \"{host}\"", address.display()),
            "use the name that it is made for in the url, or have one made for this name; sslmode=verify-ca takes \
             any name that the authority signed"
                .to_owned(),
        )
    } else if says(&["has expired"]) {
        (
            format!("the certificate of the server {} has expired", address.display()),
            "have it renewed, if the clock of this machine is right".to_owned(),
        )
    } else if says(&["not yet valid"]) {
        (
            format!("the certificate of the server {} is not valid yet", address.display()),
            "is the clock of this machine right?".to_owned(),
        )
    } else if says(&["self-signed", "self signed", "issuer certificate", "first certificate"]) {
        let asked = match trusted(address) {
            Some(path) => format!("those in {}", path.display()),
            None => "this system's".to_owned(),
        };
        (
            format!(
                "no trusted authority ({asked}) signed the certificate of the server {}",
                address.display()
            ),
            "add sslrootcert=FILE to the url, with the authority's certificate in PEM form; of a certificate that no \
             authority signed, itself"
                .to_owned(),
        )
    } else if says(&["certificate", "tls", "ssl routines"]) {
        let message = format!("no TLS connection to the server {}: {reason}", address.display());
        return Some(
            passing(message).advise("sslmode and sslrootcert in the url say what is asked of the server"),
        );
    } else {
        return None;
    };
    Some(unusable(message).advise(hint))
}
