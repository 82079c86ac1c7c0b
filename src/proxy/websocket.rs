//! WebSocket pass-through: who asks for it (RFC 6455 §4), and the tunnel after 101. Frames are not looked at.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use futures_util::future::{self, Either};
use http::header::{CONNECTION, HeaderMap, UPGRADE};
use http::request::Parts;
use http::{Method, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tracing::debug;

use super::leaving::Leaving;
use crate::base::Scope;

/// When we drain: enough for a message in flight and its reply. Clients connect again, to another process.
const GRACE: Duration = Duration::from_secs(3);

/// After one side has ended: enough for the other's last words. A peer that vanished must not hold the tunnel for ever.
const LINGER: Duration = Duration::from_secs(30);

/// Read at once.
const PIECE: usize = 8 << 10;

/// Whether a request asks for a WebSocket over HTTP/1.1.
pub fn is_asked(request: &Parts) -> bool {
    request.method == Method::GET && request.version == Version::HTTP_11 && is_agreed(&request.headers)
}

/// Whether header fields name the switch to WebSocket and no other.
pub fn is_agreed(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(CONNECTION);
    let mut options = connection
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let mut protocols = headers.get_all(UPGRADE).iter();
    let is_websocket = protocols
        .next()
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    is_websocket && protocols.next().is_none() && options.any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
}

/// Carries bytes both ways, in a task of the scope, until both sides have ended, or the address leaves by which the client came.
/// There is no idle limit: the ends ping each other.
pub fn tunnel(scope: &Scope, leaving: Arc<Leaving>, local: IpAddr, client: OnUpgrade, upstream: OnUpgrade) {
    let draining = scope.clone();
    scope.spawn(async move {
        let (client, upstream) = match future::try_join(client, upstream).await {
            Ok(ends) => ends,
            Err(error) => return debug!(%error, "a WebSocket ended before it began"),
        };
        let over = async {
            draining.draining().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            () = carry(TokioIo::new(client), TokioIo::new(upstream)) => {}
            () = over => {}
            () = leaving.leaves(local) => {}
        }
    });
}

/// Both directions; when one has ended, the other may go on for `LINGER`.
async fn carry<A, B>(client: A, upstream: B)
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (client_out, client_in) = tokio::io::split(client);
    let (upstream_out, upstream_in) = tokio::io::split(upstream);
    let up = pin!(pump(client_out, upstream_in));
    let down = pin!(pump(upstream_out, client_in));
    // Ends by time or by itself: nothing is left to be done in either case.
    let _ = match future::select(up, down).await {
        Either::Left(((), down)) => tokio::time::timeout(LINGER, down).await,
        Either::Right(((), up)) => tokio::time::timeout(LINGER, up).await,
    };
}

/// One direction: an end of the stream is passed on as such, an error ends this direction too.
async fn pump<R: AsyncRead, W: AsyncWrite>(mut from: ReadHalf<R>, mut to: WriteHalf<W>) {
    let passed = async {
        while let Some(rest) = pass(&mut from, &mut to).await? {
            to.write_all(&rest).await?;
            to.flush().await?;
        }
        io::Result::Ok(())
    };
    let passed = passed.await;
    let ended = to.shutdown().await;
    if let Err(error) = passed.and(ended) {
        debug!(%error, "a WebSocket broke off");
    }
}

/// Passes on what comes next, as far as the other side takes it; returns the rest, or `None` at the end. Only a rest has a buffer of
/// its own: WebSockets are many, and most of them are silent.
async fn pass<R: AsyncRead, W: AsyncWrite>(
    from: &mut ReadHalf<R>,
    to: &mut WriteHalf<W>,
) -> io::Result<Option<Vec<u8>>> {
    poll_fn(|cx| {
        let mut space = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *from).poll_read(cx, &mut piece))?;
        if piece.filled().is_empty() {
            return Poll::Ready(Ok(None));
        }
        let written = match Pin::new(&mut *to).poll_write(cx, piece.filled()) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        Poll::Ready(Ok(piece.filled().get(written..).map(<[u8]>::to_vec)))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    use tokio::io::AsyncReadExt;

    fn asks(method: &str, fields: &[(&str, &str)]) -> bool {
        let fields = fields
            .iter()
            .fold(http::Request::builder().method(method), |request, (name, value)| {
                request.header(*name, *value)
            });
        is_asked(&fields.body(()).expect("a request").into_parts().0)
    }

    #[test]
    fn only_websocket_is_a_switch() {
        assert!(asks(
            "GET",
            &[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]
        ));
        for fields in [
            &[("upgrade", "websocket")][..],
            &[("connection", "upgrade")],
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket, h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")],
        ] {
            assert!(!asks("GET", fields), "{fields:?}");
        }
        assert!(!asks("POST", &[("connection", "upgrade"), ("upgrade", "websocket")]));
    }

    #[tokio::test]
    async fn half_close_is_passed_on() {
        let ((mut client, near), (far, mut upstream)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        let ends = async {
            client.write_all(b"last question").await.expect("sent");
            client.shutdown().await.expect("ended");
            let mut question = String::new();
            upstream.read_to_string(&mut question).await.expect("read");
            upstream.write_all(b"answer").await.expect("sent");
            drop(upstream);
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.expect("read");
            (question, answer)
        };
        let ((), texts) = tokio::join!(carry(near, far), ends);
        assert_eq!(texts, ("last question".into(), "answer".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn vanished_peer_does_not_hold_the_tunnel() {
        let ((client, near), (far, _upstream)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        drop(client);
        let started = tokio::time::Instant::now();
        carry(near, far).await;
        assert_eq!(started.elapsed(), LINGER);
    }
}
