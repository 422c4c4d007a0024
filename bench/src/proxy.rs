//! A TCP proxy between a client and the server that counts what passes: bytes in each direction, and turns.
//!
//! ```text
//! client  --->  proxy  --->  server     bytes to the server
//!         <---         <---             bytes from the server
//! ```
//! A **trip** begins whenever the client speaks after the server did: what a distant client waits for.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

/// What passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes from the client to the server.
    pub to_server: u64,
    /// Bytes from the server to the client.
    pub from_server: u64,
    /// How often the client began to speak.
    pub trips: u64,
}

impl Traffic {
    /// Bytes in both directions.
    pub fn bytes(&self) -> u64 {
        self.to_server + self.from_server
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    FromServer,
}

#[derive(Default)]
struct Counter {
    traffic: Traffic,
    last: Option<Direction>,
}

impl Counter {
    fn count(&mut self, direction: Direction, bytes: usize) {
        match direction {
            Direction::ToServer => {
                self.traffic.to_server += bytes as u64;
                self.traffic.trips += u64::from(self.last != Some(direction));
            }
            Direction::FromServer => self.traffic.from_server += bytes as u64,
        }
        self.last = Some(direction);
    }
}

/// A running proxy; it ends with this value.
pub struct Proxy {
    address: SocketAddr,
    counter: Arc<Mutex<Counter>>,
    ended: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy on a free port of 127.0.0.1 that connects to a port there.
    ///
    /// # Errors
    /// When the system gives no port or thread.
    pub fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for the proxy")?;
        let address = listener.local_addr()?;
        let counter = Arc::new(Mutex::new(Counter::default()));
        let ended = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("proxy".to_owned()).spawn({
            let (counter, ended) = (counter.clone(), ended.clone());
            move || {
                for client in listener.incoming().flatten() {
                    if ended.load(Ordering::Acquire) {
                        break;
                    }
                    // A client whose connection cannot be made sees it closed.
                    let _ = connect(client, port, &counter);
                }
            }
        })?;
        Ok(Proxy { address, counter, ended, listener: Some(thread) })
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What passed since the last call.
    pub fn take(&self) -> Traffic {
        let mut counter = self.counter.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *counter).traffic
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // The listener looks at the flag when somebody connects.
        if TcpStream::connect(self.address).is_ok()
            && let Some(listener) = self.listener.take()
        {
            let _ = listener.join();
        }
    }
}

/// Starts a thread for each direction of a connection; they end when either side closes it.
fn connect(client: TcpStream, port: u16, counter: &Arc<Mutex<Counter>>) -> std::io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    for (direction, from, to) in [
        (Direction::ToServer, client.try_clone()?, server.try_clone()?),
        (Direction::FromServer, server, client),
    ] {
        from.set_nodelay(true)?;
        let counter = counter.clone();
        std::thread::Builder::new().spawn(move || {
            // An error ends the connection, as it would without a proxy.
            let _ = pass(direction, &from, &to, &counter);
            let _ = to.shutdown(Shutdown::Write);
        })?;
    }
    Ok(())
}

fn pass(
    direction: Direction,
    mut from: &TcpStream,
    mut to: &TcpStream,
    counter: &Mutex<Counter>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        counter.lock().unwrap_or_else(PoisonError::into_inner).count(direction, length);
        to.write_all(&buffer[..length])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each line with twice its bytes.
    fn start_server() -> Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        std::thread::spawn(move || -> std::io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut buffer = [0; 100];
            loop {
                let length = stream.read(&mut buffer)?;
                if length == 0 {
                    return Ok(());
                }
                stream.write_all(&buffer[..length])?;
                stream.write_all(&buffer[..length])?;
            }
        });
        Ok(port)
    }

    #[test]
    fn every_byte_and_trip_is_counted() -> Result<()> {
        let proxy = Proxy::to(start_server()?)?;
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))?;
        assert_eq!(proxy.take(), Traffic::default(), "a connection alone carries nothing");
        let mut answer = [0; 20];
        for _ in 0..3 {
            client.write_all(b"0123456789")?;
            client.read_exact(&mut answer)?;
            assert_eq!(&answer, b"01234567890123456789");
        }
        assert_eq!(proxy.take(), Traffic { to_server: 30, from_server: 60, trips: 3 });
        client.write_all(b"01234")?;
        client.read_exact(&mut answer[..10])?;
        assert_eq!(proxy.take(), Traffic { to_server: 5, from_server: 10, trips: 1 }, "counted anew");
        Ok(())
    }
}
