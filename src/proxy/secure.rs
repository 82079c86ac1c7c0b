//! `.htsecure` in a document root: whoever comes without TLS is led to https, as the vendor's web server does. The portal's own setting
//! makes the file, and takes it away again.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::exchange::Exchange;
use super::intake;
use super::path::Path;
use super::static_file::{Files, Found};

static MARK: LazyLock<Path> = LazyLock::new(|| Path::parse("/.htsecure").expect("a path"));

/// Where https is by itself.
pub const PORT: u16 = 443;

/// Whether the file is there, as it was seen at most a second ago.
pub struct Secure {
    opened: Instant,
    /// The second in which it was looked at, from 1, and in the last bit whether it was there.
    seen: AtomicU64,
}

impl Secure {
    pub fn new() -> Self {
        Secure {
            opened: Instant::now(),
            seen: AtomicU64::new(0),
        }
    }

    /// `None`: it is to be looked at.
    pub fn known(&self) -> Option<bool> {
        let seen = self.seen.load(Ordering::Relaxed);
        (seen >> 1 == self.second()).then_some(seen & 1 == 1)
    }

    pub async fn look(&self, files: &Files) -> bool {
        let second = self.second();
        let is_there = match files.look(&MARK).await {
            Ok(found) => matches!(found, Found::File(_)),
            // The files are away, not the wish.
            Err(_) => self.seen.load(Ordering::Relaxed) & 1 == 1,
        };
        self.seen.store(second << 1 | u64::from(is_there), Ordering::Relaxed);
        is_there
    }

    fn second(&self) -> u64 {
        self.opened.elapsed().as_secs() + 1
    }
}

/// The same address by https, at that port.
pub fn location(exchange: &Exchange, port: u16) -> String {
    let host = match (exchange.host.as_str(), exchange.local.ip().to_canonical()) {
        ("", IpAddr::V6(ip)) => format!("[{ip}]"),
        ("", IpAddr::V4(ip)) => ip.to_string(),
        (host, _) => host.to_string(),
    };
    let port = if port == PORT {
        String::new()
    } else {
        format!(":{port}")
    };
    let target = intake::origin_form(&exchange.request.uri);
    format!("https://{host}{port}{target}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::fixture::exchange;

    #[test]
    fn the_address_stays_but_for_its_scheme_and_port() {
        let mut exchange = exchange("GET", "/a%20b/?q=%D0%B0&x", &[]);
        assert_eq!(location(&exchange, 443), "https://portal.example/a%20b/?q=%D0%B0&x");
        assert_eq!(
            location(&exchange, 8443),
            "https://portal.example:8443/a%20b/?q=%D0%B0&x"
        );
        exchange.host.clear();
        assert_eq!(location(&exchange, 443), "https://192.0.2.1/a%20b/?q=%D0%B0&x");
        exchange.local = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(location(&exchange, 443), "https://[2001:db8::1]/a%20b/?q=%D0%B0&x");
    }
}
