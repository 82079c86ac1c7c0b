//! An HTTP/1 server behind the proxy: `/app/echo` returns the body, `/app/wait` answers when the test says so,
//! `/app/upgrade` becomes an echo of bytes, `/app/fields` shows the header, `/app/whole` does when all of the body has come, `/app/flood`
//! sends 32 MiB, `/app/kept` may be kept.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bitrix_node::base::Scope;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub struct Upstream {
    pub address: SocketAddr,
    /// Requests to `/app/wait` that came.
    pub arrived: Arc<Semaphore>,
    /// Each permit lets one of them go on.
    pub gate: Arc<Semaphore>,
}

type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

impl Upstream {
    pub async fn start(scope: &Scope) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Upstream {
            address: listener.local_addr().unwrap(),
            arrived: Arc::new(Semaphore::new(0)),
            gate: Arc::new(Semaphore::new(0)),
        };
        let (arrived, gate, tasks) = (upstream.arrived.clone(), upstream.gate.clone(), scope.clone());
        scope.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (arrived, gate, inner) = (arrived.clone(), gate.clone(), tasks.clone());
                let service = service_fn(move |request| answer(request, arrived.clone(), gate.clone(), inner.clone()));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tasks.spawn(async move {
                    let _ = connection.with_upgrades().await;
                });
            }
        });
        upstream
    }
}

async fn answer(
    mut request: Request<Incoming>,
    arrived: Arc<Semaphore>,
    gate: Arc<Semaphore>,
    scope: Scope,
) -> Result<Answer, Infallible> {
    Ok(match request.uri().path() {
        "/app/echo" => Response::new(request.into_body().boxed_unsync()),
        "/app/wait" => {
            arrived.add_permits(1);
            gate.acquire().await.unwrap().forget();
            text("waited")
        }
        "/app/flood" => {
            let frames = (0..512).map(|_| Ok(Frame::data(Bytes::from_static(&[b'x'; 64 << 10]))));
            Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync())
        }
        "/app/kept" => {
            let mut answer = text("kept");
            answer
                .headers_mut()
                .insert("cache-control", "public, max-age=60".parse().unwrap());
            answer
        }
        "/app/fields" => text(&format!("{:?}", request.headers())),
        "/app/whole" => {
            let (head, body) = request.into_parts();
            match body.collect().await {
                Ok(_) => text(&format!("{:?}", head.headers)),
                Err(error) => text(&error.to_string()),
            }
        }
        "/app/upgrade" => {
            let upgrade = hyper::upgrade::on(&mut request);
            scope.spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.unwrap());
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..count]).await.unwrap();
                }
            });
            let mut answer = text("");
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = answer.headers_mut();
            headers.insert("connection", "upgrade".parse().unwrap());
            headers.insert("upgrade", "websocket".parse().unwrap());
            answer
        }
        _ => {
            let mut answer = text("nothing here");
            *answer.status_mut() = StatusCode::NOT_FOUND;
            answer
        }
    })
}

fn text(text: &str) -> Answer {
    Response::new(
        Full::new(Bytes::from(text.to_string()))
            .map_err(|never| match never {})
            .boxed_unsync(),
    )
}
