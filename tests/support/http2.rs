//! HTTP/2 as bytes: frames with whatever fields a test wants, which no library would send.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::front::PATIENCE;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Indexed fields of the static table (RFC 7541 Appendix A).
const STATUS_200: u8 = 0x88;

/// What the other side makes of the one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    Ok,
    /// An answer with another status.
    Refused,
    Reset,
    /// The connection is over.
    Ended,
}

/// A field of a header, literally, without any coding (RFC 7541 §6.2.2).
fn literal((name, value): &(&[u8], &[u8])) -> Vec<u8> {
    let string = |text: &[u8]| {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
        [&[length.expect("short")], text].concat()
    };
    [vec![0], string(name), string(value)].concat()
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Sends the one request of a new connection; what came of it. `body`: `None` ends it with its header.
pub async fn ask<S>(mut stream: S, fields: &[(&[u8], &[u8])], body: Option<&[u8]>) -> Came
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let block: Vec<u8> = fields.iter().flat_map(literal).collect();
    let end = if body.is_none() { END_STREAM } else { 0 };
    let mut sent = PREFACE.to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    sent.extend(frame(HEADERS, END_HEADERS | end, 1, &block));
    if let Some(body) = body {
        sent.extend(frame(DATA, END_STREAM, 1, body));
    }
    // The other side may have had enough before the end.
    let _ = stream.write_all(&sent).await;
    timeout(PATIENCE, outcome(&mut stream)).await.expect("in time")
}

async fn outcome(stream: &mut (impl AsyncRead + Unpin)) -> Came {
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let [high, middle, low, kind, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        if stream.read_exact(&mut payload).await.is_err() {
            break;
        }
        match kind {
            HEADERS if payload.first() == Some(&STATUS_200) => return Came::Ok,
            HEADERS => return Came::Refused,
            RESET => return Came::Reset,
            GOAWAY => return Came::Ended,
            _ => {}
        }
    }
    Came::Ended
}
