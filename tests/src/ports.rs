//! Ports of the loopback for processes under test.

use std::fs::{File, OpenOptions};
use std::net::{SocketAddr, TcpListener};

use rand::RngExt;

/// Below the range from which Linux serves outgoing connections, so that no client takes a port away, and beside the
/// range of `scripts/services`.
const RANGE: std::ops::Range<u16> = 10_000..20_000;

/// A free port, kept from other tests by a locked file for as long as this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: File,
}

impl Port {
    /// Claims a free port.
    pub fn claim() -> Self {
        let folder = std::env::temp_dir().join("gathering-ports");
        std::fs::create_dir_all(&folder).expect("the folder for temporary files takes a folder");
        loop {
            let number = rand::rng().random_range(RANGE);
            let path = folder.join(number.to_string());
            let Ok(claim) = OpenOptions::new().create(true).truncate(false).write(true).open(path)
            else {
                continue;
            };
            if claim.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _claim: claim };
            }
        }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.number))
    }
}
