//! Where a client may come by HTTP/3 instead: Alt-Svc (RFC 7838 §3), on answers over TLS. Only what this process reads at the time
//! is offered, on the port that the client reached, and nothing behind a trusted proxy: where its clients may come, it decides.

use std::sync::{Arc, RwLock};

use http::HeaderValue;

use super::connection::Connection;
use super::setup::Setup;

/// A day. A client that finds nobody there comes back to where it was.
const SECONDS: u32 = 86400;

/// Ports on which HTTP/3 is spoken, and what is said of each.
#[derive(Debug, Default)]
pub struct Alternatives(Arc<RwLock<Vec<(u16, HeaderValue)>>>);

/// Ends with this.
#[derive(Debug)]
pub struct Offer {
    port: u16,
    all: Arc<RwLock<Vec<(u16, HeaderValue)>>>,
}

impl Alternatives {
    /// One for each socket; several may have the same port.
    pub fn offer(&self, port: u16) -> Offer {
        let said = format!("h3=\":{port}\"; ma={SECONDS}");
        let said = HeaderValue::try_from(said).expect("plain text");
        let mut all = self.0.write().expect("nothing panics under this lock");
        all.push((port, said));
        Offer {
            port,
            all: self.0.clone(),
        }
    }

    /// What the answer to this client says.
    pub fn of(&self, connection: &Connection, setup: &Setup) -> Option<HeaderValue> {
        connection.tls?;
        let all = self.0.read().expect("nothing panics under this lock");
        let (_, said) = all.iter().find(|(port, _)| *port == connection.local.port())?;
        match (setup.http3, setup.trust.is_nobody()) {
            (true, true) => Some(said.clone()),
            // Who has heard of it before shall forget it.
            (false, true) => Some(HeaderValue::from_static("clear")),
            (_, false) => None,
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        let mut all = self.all.write().expect("nothing panics under this lock");
        if let Some(place) = all.iter().position(|(port, _)| *port == self.port) {
            all.swap_remove(place);
        }
    }
}
