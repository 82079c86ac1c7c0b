//! The way to the service: a connection for each request, TLS unless the endpoint says http. (What is sent is sealed, and the
//! secret key signs, and is not sent.)

use std::io;
use std::path::Path;
use std::time::Duration;

use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Uri};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::base::Scope;
use crate::net::name::Names;
use crate::net::tls::Connector as Tls;

/// From the first byte of a request to the head of its answer: a part of an upload on a slow line.
const ANSWER: Duration = Duration::from_secs(300);

#[derive(Clone)]
pub struct Connector {
    tls: Tls,
    names: Names,
    scope: Scope,
}

impl Connector {
    pub fn new(authority: Option<&Path>, scope: &Scope) -> io::Result<Self> {
        Ok(Connector {
            tls: Tls::new(authority)?,
            names: Names::system()?,
            scope: scope.clone(),
        })
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let uri = request.uri().clone();
        let is_tls = uri.scheme_str() == Some("https");
        let authority = uri.authority().cloned();
        let authority = authority.ok_or_else(|| unknown(io::Error::other("the endpoint has no host")))?;
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = self.names.connect(authority.host(), port).await.map_err(connect)?;
        match is_tls {
            true => {
                let host = authority.host().trim_matches(['[', ']']);
                let stream = self.tls.connect(host, stream).await.map_err(connect)?;
                self.ask(request, stream, authority.as_str()).await
            }
            false => self.ask(request, stream, authority.as_str()).await,
        }
    }

    async fn ask(
        &self,
        mut request: HttpRequest,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        authority: &str,
    ) -> Result<HttpResponse, HttpError> {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let target = target.parse::<Uri>().map_err(unknown)?;
        let host = HeaderValue::from_str(authority).map_err(unknown)?;
        *request.uri_mut() = target;
        let headers = request.headers_mut();
        headers.entry(HOST).or_insert(host);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(connect)?;
        self.scope.spawn(connection);
        let answer = timeout(ANSWER, sender.send_request(request)).await;
        let answer = answer.map_err(|error| HttpError::new(HttpErrorKind::Timeout, error))?;
        let (head, body) = answer
            .map_err(|error| HttpError::new(HttpErrorKind::Request, error))?
            .into_parts();
        let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}

fn connect(error: impl std::error::Error + Send + Sync + 'static) -> HttpError {
    HttpError::new(HttpErrorKind::Connect, error)
}

fn unknown(error: impl std::error::Error + Send + Sync + 'static) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, error)
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Connector")
    }
}

impl HttpService for Connector {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.exchange(request))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}
