//! A connection that counts what passes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What passed between a client and a server.
#[derive(Debug, Default)]
pub struct Passed {
    bytes: AtomicU64,
    trips: AtomicU64,
    /// Whether the last bytes came from the server.
    answered: AtomicU64,
}

impl Passed {
    /// Bytes in both directions, and how often an answer was waited for; counted from 0 again afterwards.
    pub fn take(&self) -> (u64, u64) {
        (self.bytes.swap(0, Ordering::SeqCst), self.trips.swap(0, Ordering::SeqCst))
    }
}

/// Listens on a port of its own, for one connection to `port`.
pub fn relay(port: u16) -> (u16, Arc<Passed>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let own = listener.local_addr().expect("an address").port();
    let passed = Arc::new(Passed::default());
    let counted = Arc::clone(&passed);
    std::thread::spawn(move || {
        let (client, _) = listener.accept().expect("a connection");
        let server = TcpStream::connect(("127.0.0.1", port)).expect("the server");
        let back = (server.try_clone().expect("a stream"), client.try_clone().expect("a stream"));
        let answers = Arc::clone(&counted);
        std::thread::spawn(move || pass(back.0, back.1, &answers, 1));
        pass(client, server, &counted, 0);
    });
    (own, passed)
}

fn pass(mut from: TcpStream, mut to: TcpStream, passed: &Passed, answer: u64) {
    to.set_nodelay(true).expect("a setting");
    let mut buffer = [0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        passed.bytes.fetch_add(read as u64, Ordering::SeqCst);
        if passed.answered.swap(answer, Ordering::SeqCst) < answer {
            passed.trips.fetch_add(1, Ordering::SeqCst);
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
