//! Calls over HTTP: to the agent's control socket, and to the portal itself.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

const DEADLINE: Duration = Duration::from_secs(5);

/// An answer as it came.
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// Gets a document of the agent.
pub async fn get(socket: &Path, path: &str) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(socket)
        .await
        .with_context(|| socket.display().to_string())?;
    let answer = get_over(stream, "control", path).await?;
    anyhow::ensure!(answer.status.is_success(), "the agent answered {}", answer.status);
    Ok(answer.body)
}

/// Asks once over a fresh connection.
pub async fn get_over<S>(stream: S, host: &str, path: &str) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::time::timeout(DEADLINE, ask(stream, host, path))
        .await
        .with_context(|| format!("{host} did not answer within {DEADLINE:?}"))?
}

async fn ask<S>(stream: S, host: &str, path: &str) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header("host", host).body(Empty::<Bytes>::new())?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::Ok(Answer { status, body })
    };
    // The connection is driven beside the call; it ends with it.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}
