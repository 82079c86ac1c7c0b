//! `Cloud`: fetches objects of cloud stores for clients that PHP sent there.

use std::collections::HashMap;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HOST, HeaderMap, HeaderName,
    HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE, VARY,
};
use http::{Method, Request, Response};

use super::aim::Object;
use crate::base::Scope;
use crate::net::tls::Connector;
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::{Body, Exchange, Target};
use crate::proxy::forward::Upstream;
use crate::proxy::leaving::Leaving;
use crate::proxy::path::Path;

/// Hosts whose connections are kept: each bucket is one. A further one takes the place of any other.
const MOST: usize = 64;

/// What of the client's request the store sees: nothing that says who asks, or lets it act in the client's name.
const ASKED: [HeaderName; 4] = [RANGE, IF_RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE];

/// What of the store's answer the client sees.
const ANSWERED: [HeaderName; 8] = [
    ACCEPT_RANGES,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    ETAG,
    LAST_MODIFIED,
    VARY,
];

pub struct Cloud {
    stores: Vec<String>,
    tls: Connector,
    silence: Duration,
    scope: Scope,
    leaving: Arc<Leaving>,
    /// By scheme and authority.
    upstreams: Mutex<HashMap<String, Arc<Upstream>>>,
}

impl Cloud {
    /// `stores`: hosts that objects are fetched from. `authority`: PEM of a company's own root, beside the public ones; may be empty.
    pub fn new(
        stores: Vec<String>,
        authority: &FilePath,
        silence: Duration,
        scope: Scope,
        leaving: Arc<Leaving>,
    ) -> anyhow::Result<Self> {
        let authority = Some(authority).filter(|path| !path.as_os_str().is_empty());
        Ok(Cloud {
            stores,
            tls: Connector::new(authority)?,
            silence,
            scope,
            leaving,
            upstreams: Mutex::default(),
        })
    }

    /// The object as the store answers it; an error of the store is an answer too.
    pub async fn fetch(&self, exchange: &Exchange, object: &Object) -> Result<Response<Body>, Error> {
        if !object.is_at(&self.stores) {
            let detail = format!("{} is not in proxy.cloud_hosts", object.authority());
            return Err(Error::new(Kind::Forbidden, detail));
        }
        let mut asking = ask(exchange, object)?;
        let body = http_body_util::Empty::new();
        let body =
            http_body_util::BodyExt::boxed_unsync(http_body_util::BodyExt::map_err(body, |never| match never {}));
        let mut answer = self.upstream(object)?.call(&mut asking, body).await?;
        let mut headers = HeaderMap::new();
        for name in ANSWERED {
            if let Some(value) = answer.headers_mut().remove(&name) {
                headers.insert(name, value);
            }
        }
        *answer.headers_mut() = headers;
        Ok(answer)
    }

    fn upstream(&self, object: &Object) -> Result<Arc<Upstream>, Error> {
        let key = format!(
            "{}{}",
            if object.is_tls { "https://" } else { "http://" },
            object.authority()
        );
        let mut upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upstream) = upstreams.get(&key) {
            return Ok(upstream.clone());
        }
        let tls = object.is_tls.then(|| self.tls.clone());
        let (scope, leaving) = (self.scope.clone(), self.leaving.clone());
        let upstream = Upstream::store(&object.host, object.port, tls, self.silence, scope, leaving);
        let upstream = Arc::new(upstream.map_err(|error| Error::new(Kind::Internal, format!("{error:#}")))?);
        if upstreams.len() >= MOST
            && let Some(other) = upstreams.keys().next().cloned()
        {
            upstreams.remove(&other);
        }
        upstreams.insert(key, upstream.clone());
        Ok(upstream)
    }
}

/// The request to the store.
fn ask(exchange: &Exchange, object: &Object) -> Result<Exchange, Error> {
    let is_head = exchange.request.method == Method::HEAD;
    let mut request = Request::builder()
        .method(if is_head { Method::HEAD } else { Method::GET })
        .uri(object.target.as_str());
    for name in ASKED {
        if let Some(value) = exchange.request.headers.get(&name) {
            request = request.header(name, value);
        }
    }
    let broken = |error: &dyn std::fmt::Display| Error::new(Kind::Internal, format!("an object's name: {error}"));
    let host = HeaderValue::try_from(object.authority()).map_err(|error| broken(&error))?;
    let request = request.header(HOST, host).body(()).map_err(|error| broken(&error))?;
    let (request, ()) = request.into_parts();
    let path = Path::parse(request.uri.path()).map_err(|why| broken(&why))?;
    Ok(Exchange {
        path,
        request,
        host: object.host.clone(),
        target: Target::Upstream,
        ..*exchange
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::proxy::fixture::{exchange, read};

    #[tokio::test]
    async fn a_store_is_not_told_who_asks() {
        let store = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let authority = store.local_addr().expect("address").to_string();
        let port = store.local_addr().expect("address").port();
        let object = Object {
            is_tls: false,
            host: "127.0.0.1".into(),
            port,
            target: "/bucket/a.jpg?sig=1".into(),
        };
        let patience = Duration::from_secs(60);
        let cloud = Cloud::new(
            vec![authority.clone()],
            FilePath::new(""),
            patience,
            Scope::new(),
            Arc::default(),
        );
        let cloud = cloud.expect("a way to stores");
        let fields = [
            ("range", "bytes=0-1"),
            ("cookie", "PHPSESSID=1"),
            ("authorization", "Basic eA=="),
            ("user-agent", "browser"),
            ("referer", "https://portal.example/secret"),
            ("x-forwarded-for", "198.51.100.8"),
        ];
        let serve = async {
            let (mut stream, _) = store.accept().await.expect("accepted");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("more"));
            }
            let answer = b"HTTP/1.1 206 Partial Content\r\nSet-Cookie: a=1\r\nContent-Length: 2\r\n\r\nhi";
            stream.write_all(answer).await.expect("sent");
            String::from_utf8(head).expect("text")
        };
        let exchange = exchange("GET", "/download.php", &fields);
        let (head, answer) = tokio::join!(serve, cloud.fetch(&exchange, &object));
        let mut lines: Vec<&str> = head.trim_end().lines().collect();
        lines[1..].sort_unstable();
        let host = format!("host: {authority}");
        assert_eq!(
            lines,
            ["GET /bucket/a.jpg?sig=1 HTTP/1.1", host.as_str(), "range: bytes=0-1"]
        );
        let answer = answer.expect("answered");
        assert!(!answer.headers().contains_key("set-cookie"));
        assert_eq!(read(answer.into_body()).await.expect("whole"), "hi");
    }
}
