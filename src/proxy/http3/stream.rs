//! One request over HTTP/3: its header within the time for that, its answer by the front, and the answer's way out.

use std::sync::Arc;

use bytes::Bytes;
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tracing::debug;

use super::message;
use super::upload::Upload;
use super::wire::{self, End, Outgoing, Stopped};
use crate::base::clock;
use crate::proxy::connection::Connection;
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::Body;
use crate::proxy::framing::{Limits, Refusal};
use crate::proxy::request_body::Inflow;
use crate::proxy::service::Front;

pub type Resolver = RequestResolver<wire::Connection, Bytes>;

/// A request's stream that h3 accepted.
pub struct Stream {
    pub front: Arc<Front>,
    pub connection: Arc<Connection>,
    pub resolver: Resolver,
    pub stopped: Stopped,
}

impl Stream {
    /// Whether the client had its answer whole.
    pub async fn serve(self) -> End {
        let setup = self.front.setup();
        let (limits, patience) = (setup.limits, setup.patience);
        drop(setup);
        let received = timeout(patience.header, receive(self.resolver, limits)).await;
        let (request, mut sender) = match received {
            Ok(Ok(received)) => received,
            Ok(Err(error)) => {
                debug!(client.addr = %self.connection.peer, %error, "no request");
                self.front.metrics.refused_request();
                return End::Cut;
            }
            Err(_) => {
                self.front.metrics.refused(Kind::Slow);
                return End::Cut;
            }
        };
        let is_head = request.method() == Method::HEAD;
        let number = self.connection.take();
        let connection = self.connection.clone();
        let answering = async {
            let answer = self.front.answer(connection, number, request).await;
            send(&mut sender, answer, is_head).await
        };
        tokio::select! {
            biased;
            sent = answering => if let Err(error) = sent {
                debug!(client.addr = %self.connection.peer, %error, "an answer broke off");
                return End::Cut;
            },
            end = self.stopped.clone() => return end,
        }
        // Until then the connection must not be closed: what is on its way would be lost.
        timeout(patience.body, self.stopped).await.unwrap_or(End::Cut)
    }
}

/// Why a request or its answer broke off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Answer(Error),
}

/// What must not be served carries its refusal, so that the answer is made and logged where all are.
async fn receive(
    resolver: Resolver,
    limits: Limits,
) -> Result<(Request<Inflow>, RequestStream<Outgoing, Bytes>), StreamError> {
    let (mut request, stream) = resolver.resolve_request().await?;
    let length = match message::length(request.headers()) {
        _ if message::size(&request) > limits.size => Err(Refusal {
            kind: Kind::HeaderTooLarge,
            why: "a header beyond the limit",
        }),
        Err(why) => Err(Refusal {
            kind: Kind::Malformed,
            why,
        }),
        Ok(length) => Ok(length),
    };
    if let Err(refusal) = length {
        request.extensions_mut().insert(refusal);
    }
    let (sender, receiver) = stream.split();
    let upload = Upload::begin(receiver, length.unwrap_or(Some(0))).await?;
    Ok((request.map(|()| Inflow::Http3(Box::new(upload))), sender))
}

async fn send(
    sender: &mut RequestStream<Outgoing, Bytes>,
    answer: Response<Body>,
    is_head: bool,
) -> Result<(), Broken> {
    let (mut parts, mut body) = answer.into_parts();
    let is_bare = is_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    complete(&mut parts.headers, body.size_hint().exact().filter(|_| !is_bare));
    sender.send_response(Response::from_parts(parts, ())).await?;
    if !is_bare {
        while let Some(frame) = body.frame().await {
            match frame.map(|frame| frame.into_data()) {
                Ok(Ok(data)) if !data.is_empty() => sender.send_data(data).await?,
                // Trailers end here, as they do over HTTP/1 and 2.
                Ok(_) => {}
                Err(error) => {
                    sender.stop_stream(Code::H3_INTERNAL_ERROR);
                    return Err(Broken::Answer(error));
                }
            }
        }
    }
    drop(body);
    Ok(sender.finish().await?)
}

/// What hyper adds to an answer over HTTP/1 and 2.
fn complete(headers: &mut HeaderMap, length: Option<u64>) {
    if let (Some(length), false) = (length, headers.contains_key(header::CONTENT_LENGTH)) {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if !headers.contains_key(header::DATE) {
        let date = httpdate::fmt_http_date(clock::wall());
        headers.insert(header::DATE, HeaderValue::try_from(date).expect("plain text"));
    }
}
