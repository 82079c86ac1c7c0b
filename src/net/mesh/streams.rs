//! HTTP/2 between nodes, through hyper: for requests and byte streams that are many and short. The limits of the
//! `h2` crate that would stop a whole connection are raised (spec/mesh-and-push.md A4, A6), and what it would let
//! wait without bound is refused at once here.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::base::{BoxFuture, Scope};

use super::error::{CallError, ConnectError, OpenError, Why};
use super::keeper::{AGE, Kept};
use super::link;
use super::tls::HANDSHAKE;

/// Streams of one connection. Full: a further one is refused at once.
pub const STREAMS: u32 = 4096;
/// Of one stream: 10 Gbit/s with a round trip of 0.8 ms.
pub(super) const STREAM_WINDOW: u32 = 1024 * 1024;
/// Of a connection: so large that streams whose readers are slow never stop the others.
pub(super) const CONNECTION_WINDOW: u32 = 1 << 30;
/// Streams that were given up and are remembered; beyond the default of 20 `h2` would end the connection.
pub(super) const RESETS: usize = 1 << 16;
/// Headers of proxied requests: cookies of portals are known to exceed hyper's 16 KiB.
pub(super) const HEADERS: u32 = 64 * 1024;
/// With the second of the ping interval this makes three seconds of silence.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(2);

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Of requests and responses, both ways.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body without bytes.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Runs the tasks of one connection for hyper: owned by our scope, cut off together.
#[derive(Clone)]
pub(super) struct Tasks {
    scope: Scope,
    cut: CancellationToken,
    _running: mpsc::Sender<Infallible>,
}

/// The end of `Tasks` that their connection's owner holds.
pub(super) struct Running {
    pub cut: CancellationToken,
    running: mpsc::Receiver<Infallible>,
}

impl Tasks {
    pub fn new(scope: &Scope) -> (Self, Running) {
        let (_running, running) = mpsc::channel(1);
        let cut = CancellationToken::new();
        let tasks = Tasks {
            scope: scope.clone(),
            cut: cut.clone(),
            _running,
        };
        (tasks, Running { cut, running })
    }
}

impl Running {
    /// Resolves when all tasks have ended and no more can come. Cancel safe.
    async fn ended(&mut self) {
        while self.running.recv().await.is_some() {}
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        let cut = self.cut.clone();
        self.scope
            .spawn(async move { cut.run_until_cancelled_owned(task).await });
    }
}

/// A stream's place among those of its connection, in the extensions of its response.
#[derive(Clone)]
struct Place(#[allow(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

/// A client connection. Clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    sender: SendRequest<Body>,
    places: Arc<Semaphore>,
    over: Arc<watch::Sender<Option<Why>>>,
    drained: CancellationToken,
}

/// Why a request has no response.
pub(super) enum Unanswered {
    /// The connection takes no more; here is the request back.
    Turned(Box<Request<Body>>),
    Failed(CallError),
}

impl Connection {
    /// Speaks HTTP/2 on `stream`; returns when the other side has answered, for only then has it accepted us.
    pub async fn start<S>(stream: S, scope: &Scope) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (tasks, mut running) = Tasks::new(scope);
        let heard = Arc::new(watch::Sender::new(false));
        let mut first = heard.subscribe();
        let stream = Listened { stream, heard };
        let (sender, served) = builder(tasks)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ConnectError::Ended(why(&error)))?;
        let connection = Connection {
            sender,
            places: Arc::new(Semaphore::new(STREAMS as usize)),
            over: Arc::new(watch::Sender::new(None)),
            drained: CancellationToken::new(),
        };
        let (over, drained) = (connection.over.clone(), connection.drained.clone());
        scope.spawn(async move {
            let why = served.await.err().map_or(Why::Closed, |error| why(&error));
            debug!(%why, "a connection for streams ended");
            over.send_replace(Some(why));
        });
        scope.spawn(async move {
            let overdue = async {
                drained.cancelled().await;
                // Streams under way may finish, but a certificate is not believed for much longer than its check.
                tokio::time::sleep(AGE).await;
            };
            tokio::select! {
                () = running.ended() => {}
                () = overdue => running.cut.cancel(),
            }
        });
        let accepted = async {
            tokio::select! {
                biased;
                Ok(_) = first.wait_for(|heard| *heard) => Ok(()),
                why = connection.over() => Err(ConnectError::Ended(why)),
            }
        };
        match tokio::time::timeout(HANDSHAKE, accepted).await {
            Ok(result) => result.map(|()| connection.clone()),
            Err(_) => Err(ConnectError::TimedOut),
        }
    }

    pub async fn request(&self, request: Request<Body>, deadline: Instant) -> Result<Response<Body>, Unanswered> {
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| Unanswered::Failed(CallError::NotSent(Why::Busy)))?;
        let mut sender = self.sender.clone();
        let response = timeout_at(deadline, sender.try_send_request(request)).await;
        match response {
            Ok(Ok(mut response)) => {
                let place = Place(Arc::new(place));
                response.extensions_mut().insert(place.clone());
                Ok(response.map(|body| Placed { body, _place: place }.boxed_unsync()))
            }
            Ok(Err(mut error)) => Err(match error.take_message() {
                Some(request) => {
                    // The peer has said goodbye, or the connection is gone: the keeper shall make another.
                    self.over
                        .send_if_modified(|over| over.is_none() && over.replace(Why::Draining).is_none());
                    Unanswered::Turned(Box::new(request))
                }
                None => Unanswered::Failed(CallError::Unknown(why(error.error()))),
            }),
            Err(_) => Err(Unanswered::Failed(CallError::Unknown(Why::Deadline))),
        }
    }
}

impl Kept for Connection {
    fn over(&self) -> BoxFuture<'static, Why> {
        let mut over = self.over.subscribe();
        Box::pin(async move {
            let why = over.wait_for(Option::is_some).await;
            why.ok().and_then(|why| why.clone()).unwrap_or(Why::Closed)
        })
    }

    fn is_over(&self) -> bool {
        self.over.borrow().is_some()
    }

    /// hyper closes the connection when the last handle is dropped and the last stream has ended.
    fn drain(&self) {
        self.drained.cancel();
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.over, &other.over)
    }
}

/// Turns the answer to a CONNECT into its byte stream.
pub(super) async fn upgrade(mut response: Response<Body>) -> Result<ByteStream, OpenError> {
    // Only this status makes a tunnel of the stream (hyper's client agrees).
    if response.status() != StatusCode::OK {
        return Err(OpenError::Refused(response.status()));
    }
    let place = response.extensions_mut().remove();
    let io = hyper::upgrade::on(response).await;
    let io = io.map_err(|error| CallError::Unknown(why(&error)))?;
    Ok(ByteStream {
        io: TokioIo::new(io),
        _place: place,
    })
}

fn builder(tasks: Tasks) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(STREAMS as usize)
        .max_concurrent_reset_streams(RESETS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(None)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(link::PING)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    builder
}

fn why(error: &hyper::Error) -> Why {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return link::broken(io);
        }
        cause = inner.source();
    }
    match error.is_timeout() {
        true => Why::Silent,
        false => Why::Broken(crate::base::error::chain(error).into()),
    }
}

/// A byte stream to a node, opened by CONNECT.
pub struct ByteStream {
    io: TokioIo<Upgraded>,
    /// The place among the streams of its connection.
    _place: Option<Place>,
}

impl ByteStream {
    /// The accepting side's.
    pub(super) fn accepted(io: Upgraded) -> Self {
        ByteStream {
            io: TokioIo::new(io),
            _place: None,
        }
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A response's body, which holds its place among the streams of the connection.
struct Placed {
    body: hyper::body::Incoming,
    _place: Place,
}

impl http_body::Body for Placed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx).map_err(BoxError::from)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Notes the first byte that comes.
struct Listened<S> {
    stream: S,
    heard: Arc<watch::Sender<bool>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Listened<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.heard.send_if_modified(|heard| !std::mem::replace(heard, true));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listened<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
