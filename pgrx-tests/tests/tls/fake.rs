//! A server that is none: it records what a client tells it before it knows better.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use native_tls::TlsAcceptor;

use crate::certificates::Identity;

/// What the fake server does with a client.
pub enum Trick {
    /// Says that it has no TLS, and goes on in the clear.
    NoTls,
    /// Offers TLS with this identity, and asks for the password in the clear within it.
    AskPassword(Identity),
}

/// What a client told: on the wire, and what TLS hid.
#[derive(Debug)]
pub struct Told {
    pub on_the_wire: Vec<u8>,
    pub within_tls: Vec<u8>,
}

/// How a client asks for TLS: a length, and a number that is no version of the protocol.
pub const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A connection that keeps a copy of what it reads.
#[derive(Debug)]
struct Tapped {
    stream: TcpStream,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Read for Tapped {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.stream.read(buffer)?;
        self.heard.lock().expect("what was heard").extend(&buffer[..length]);
        Ok(length)
    }
}

impl Write for Tapped {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// Listens for one client; the port, and what it told once it is gone.
pub fn listen(trick: Trick) -> (u16, JoinHandle<Told>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let told = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut tapped = Tapped { stream, heard: Arc::clone(&heard) };
        let mut request = [0; 8];
        tapped.read_exact(&mut request).expect("the first bytes");
        assert_eq!(request, TLS_REQUEST, "the client asks for TLS first");
        let within_tls = match trick {
            Trick::NoTls => {
                tapped.write_all(b"N").expect("an answer");
                let _ = tapped.read_to_end(&mut Vec::new());
                Vec::new()
            }
            Trick::AskPassword(identity) => {
                tapped.write_all(b"S").expect("an answer");
                within_tls(tapped, &identity)
            }
        };
        let on_the_wire = heard.lock().expect("what was heard").clone();
        Told { on_the_wire, within_tls }
    });
    (port, told)
}

fn within_tls(tapped: Tapped, identity: &Identity) -> Vec<u8> {
    let identity = native_tls::Identity::from_pkcs8(identity.certificate.as_bytes(), identity.key.as_bytes());
    let acceptor = TlsAcceptor::new(identity.expect("an identity")).expect("an acceptor");
    let mut heard = Vec::new();
    let Ok(mut tls) = acceptor.accept(tapped) else { return heard };
    let mut buffer = [0; 4096];
    // The client's first message; then a request for a password, and what comes of it.
    if let Ok(length @ 1..) = tls.read(&mut buffer) {
        heard.extend(&buffer[..length]);
        let _ = tls.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]);
        while let Ok(length @ 1..) = tls.read(&mut buffer) {
            heard.extend(&buffer[..length]);
        }
    }
    heard
}
