//! Opening a connection, with TLS as its address asks for.

use plimsoll_core::store::Outcome;
use tokio::runtime::Runtime;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Error, NoTls, Socket};

use super::address::{Address, TlsMode};
use super::error::connect_failure;
use super::tls;
use crate::failure::run as no_run;

/// What connections of one thread run on.
///
/// # Errors
/// A `Run` failure where this machine refuses what a connection needs.
pub fn runtime() -> Outcome<Runtime> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| no_run(format!("no network: {error}")))
}

/// Connects.
///
/// # Errors
/// What the server says, and what TLS says of it.
pub fn connect(runtime: &Runtime, address: &Address) -> Outcome<Client> {
    let (config, mode) = (&address.config, address.mode);
    let client = runtime.block_on(async {
        if mode == TlsMode::Disable || mode == TlsMode::Allow {
            match open(config, NoTls).await {
                Ok(client) => return Ok(client),
                Err(error) if mode == TlsMode::Disable || error.as_db_error().is_none() => {
                    return Err(connect_failure(&error, address));
                }
                // The server may insist on TLS.
                Err(_) => {}
            }
        }
        let mut config = config.clone();
        if mode == TlsMode::Allow {
            config.ssl_mode(SslMode::Require);
        }
        let opened = match tls::is_optional(address) {
            true => open(&config, tls::OnOffer(address.clone())).await,
            false => open(&config, tls::connector(address)?).await,
        };
        opened.map_err(|error| connect_failure(&error, address))
    })?;
    tracing::debug!(server = %address.display(), "connected");
    Ok(client)
}

/// Opens a connection; its own task speaks for it from then on.
async fn open<T>(config: &Config, tls: T) -> Result<Client, Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    tokio::spawn(connection);
    Ok(client)
}
