//! A request and an answer as rules see them: from raw parts to values. No HTTP library's types; the front fills them in.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::proxy::waf::body;
use crate::proxy::waf::store::Store;
use crate::proxy::waf::transform::{Reading, Transform};
use crate::proxy::waf::variable::Variable;

/// The head of a request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Bytes,
    /// As it was sent: a path with a query, or a whole URI.
    pub target: Bytes,
    /// Like `HTTP/1.1`.
    pub protocol: &'static str,
    pub headers: Vec<(Bytes, Bytes)>,
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub host: String,
    pub id: String,
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub protocol: &'static str,
    pub headers: Vec<(Bytes, Bytes)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        header(&self.headers, name)
    }

    /// `Err`: the query or the cookies have more parts than are looked at.
    pub(super) fn fill(&self, store: &mut Store) -> Result<(), body::Fault> {
        use Variable::*;
        let (path, query) = match memchr::memchr(b'?', &self.target) {
            Some(at) => (self.target.slice(..at), self.target.slice(at + 1..)),
            None => (self.target.clone(), Bytes::new()),
        };
        // Without scheme and host, where a whole URI was sent.
        let start = memchr::memmem::find(&path, b"://").filter(|_| !path.starts_with(b"/"));
        let start = start.map_or(0, |at| {
            let slash = memchr::memchr(b'/', &path[at + 3..]);
            slash.map_or(path.len(), |slash| at + 3 + slash)
        });
        let path = path.slice(start..);
        let line = [&self.method[..], b" ", &self.target, b" ", self.protocol.as_bytes()].concat();
        store.set(RequestLine, line);
        store.set(RequestMethod, self.method.clone());
        store.set(RequestProtocol, self.protocol);
        store.set(RequestUriRaw, self.target.clone());
        store.set(RequestUri, self.target.slice(start..));
        // Decoded, as the server before the rules would have it.
        let path = decoded(&path);
        let name = path
            .iter()
            .rposition(|byte| matches!(byte, b'/' | b'\\'))
            .map_or(0, |at| at + 1);
        store.set(RequestBasename, path.slice(name..));
        store.set(RequestFilename, path);
        store.set(QueryString, query.clone());
        store.set(RemoteAddr, self.client.ip().to_canonical().to_string());
        store.set(RemotePort, self.client.port().to_string());
        store.set(ServerAddr, self.server.ip().to_canonical().to_string());
        store.set(ServerPort, self.server.port().to_string());
        store.set(ServerName, self.host.clone());
        store.set(UniqueId, self.id.clone());
        let scheme = self
            .header("authorization")
            .and_then(|value| value.split(|byte| *byte == b' ').next());
        store.set(AuthType, Bytes::copy_from_slice(scheme.unwrap_or_default()));
        add(store, &self.headers, RequestHeaders, RequestHeadersNames);
        let cookies = self
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(b"cookie"));
        let read = cookies
            .map(|(_, value)| body::cookies(value, store))
            .collect::<Result<Vec<()>, _>>();
        let query = body::query(&query, store);
        read.and(query)
    }
}

impl Answer {
    pub(super) fn fill(&self, store: &mut Store) {
        use Variable::*;
        store.set(ResponseStatus, self.status.to_string());
        store.set(ResponseProtocol, self.protocol);
        let field = |name| header(&self.headers, name).cloned().unwrap_or_default();
        store.set(ResponseContentType, field("content-type"));
        store.set(ResponseContentLength, field("content-length"));
        add(store, &self.headers, ResponseHeaders, ResponseHeadersNames);
    }
}

fn add(store: &mut Store, headers: &[(Bytes, Bytes)], values: Variable, names: Variable) {
    for (name, value) in headers {
        store.add(names, name.clone(), name.clone());
        store.add(values, name.clone(), value.clone());
    }
}

/// A path's escapes; its plus signs are plus signs.
fn decoded(path: &Bytes) -> Bytes {
    if memchr::memchr(b'%', path).is_none() {
        return path.clone();
    }
    let parts = path.split(|byte| *byte == b'+');
    let parts: Vec<Vec<u8>> = parts
        .map(|part| {
            Transform::UrlDecode
                .apply(part, Reading::Text)
                .unwrap_or_else(|| part.to_vec())
        })
        .collect();
    parts.join(&b'+').into()
}

fn header<'a>(headers: &'a [(Bytes, Bytes)], name: &str) -> Option<&'a Bytes> {
    let found = headers
        .iter()
        .find(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes()));
    found.map(|(_, value)| value)
}
