//! Responses for a file: status, header fields and body from what the request asks and the file is.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED, RANGE, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};

use super::entry::{Version, Versions};
use super::stream::{Piece, Stream};
use crate::base::clock;
use crate::proxy::conditional::{Outcome, Validators, decide};
use crate::proxy::content_type::{is_active, is_long_lived};
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::{Body, Exchange};
use crate::proxy::range::{Ranges, parse};

/// 30 days. `Expires` would say the same to HTTP/1.0 caches only (RFC 9111 §5.3).
const MONTH: HeaderValue = HeaderValue::from_static("max-age=2592000");

/// An uploaded drawing may look as it likes but not run anything.
const SVG_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox");

/// What to send.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan {
    /// 304, 412, or the head of a 200.
    Bodiless(StatusCode),
    Whole,
    /// 206 with one part, or with several as multipart/byteranges.
    Parts(Vec<Range<u64>>),
}

impl Plan {
    /// `Range`: none of the ranges lies within the file.
    pub fn decide(exchange: &Exchange, version: &Version) -> Result<Plan, Error> {
        let wall = clock::wall();
        let headers = &exchange.request.headers;
        let etag = version.etag(wall);
        let validators = Validators {
            etag: &etag,
            modified: version.modified,
        };
        let with_range = match decide(headers, &validators, wall) {
            Outcome::NotModified => return Ok(Plan::Bodiless(StatusCode::NOT_MODIFIED)),
            Outcome::Failed => return Ok(Plan::Bodiless(StatusCode::PRECONDITION_FAILED)),
            Outcome::Proceed { with_range } => with_range,
        };
        // A range is defined for GET alone (RFC 9110 §14.2).
        if exchange.request.method == Method::HEAD {
            return Ok(Plan::Bodiless(StatusCode::OK));
        }
        let range = headers
            .get(RANGE)
            .filter(|_| with_range)
            .and_then(|range| range.to_str().ok());
        match range.map_or(Ranges::Whole, |range| parse(range, version.size())) {
            Ranges::Whole => Ok(Plan::Whole),
            Ranges::Parts(parts) => Ok(Plan::Parts(parts)),
            Ranges::Unsatisfiable => Err(Error::new(Kind::Range(version.size()), "no range lies within the file")),
        }
    }
}

/// An answer without body.
pub fn without_body(file: &Versions, version: &Version, status: StatusCode) -> Response<Body> {
    let mut headers = state(file, version);
    if status == StatusCode::OK {
        describe(&mut headers, file, version);
        headers.insert(CONTENT_TYPE, file.content_type.clone());
        headers.insert(CONTENT_LENGTH, version.size().into());
    }
    respond(
        status,
        headers,
        Empty::new().map_err(|never| match never {}).boxed_unsync(),
    )
}

/// An answer from a content in memory.
pub fn from_memory(
    exchange: &Exchange,
    file: &Versions,
    version: &Version,
    plan: &Plan,
    content: &Bytes,
) -> Response<Body> {
    let (status, headers, pieces) = lay_out(exchange, file, version, plan);
    let slice = |range: Range<u64>| {
        let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
        let range = start.unwrap_or(usize::MAX)..end.unwrap_or(usize::MAX);
        // Ranges were cut to the size, which is the content's.
        if range.start <= range.end && range.end <= content.len() {
            content.slice(range)
        } else {
            Bytes::new()
        }
    };
    let mut bytes: VecDeque<Bytes> = VecDeque::with_capacity(pieces.len());
    for piece in pieces {
        bytes.push_back(match piece {
            Piece::Text(text) => text,
            Piece::File(range) => slice(range),
        });
    }
    let body = match bytes.len() {
        0 | 1 => Full::new(bytes.pop_front().unwrap_or_default())
            .map_err(|never| match never {})
            .boxed_unsync(),
        _ => StreamBody::new(stream::iter(bytes.into_iter().map(|bytes| Ok(Frame::data(bytes))))).boxed_unsync(),
    };
    respond(status, headers, body)
}

/// An answer that streams from the file.
pub fn from_file(
    exchange: &Exchange,
    file: &Versions,
    version: &Version,
    plan: &Plan,
    handle: Arc<File>,
) -> Response<Body> {
    let (status, headers, pieces) = lay_out(exchange, file, version, plan);
    respond(status, headers, Stream::new(handle, pieces).boxed_unsync())
}

fn respond(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Fields of every answer about the file, 304 included (RFC 9110 §15.4.5).
fn state(file: &Versions, version: &Version) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    if let Ok(etag) = HeaderValue::try_from(version.etag(clock::wall())) {
        headers.insert(ETAG, etag);
    }
    headers.insert(LAST_MODIFIED, version.last_modified.clone());
    if file.is_users || is_long_lived(&file.extension) {
        headers.insert(CACHE_CONTROL, MONTH);
    }
    if !file.copies.is_empty() || version.is_made() {
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    headers
}

/// Fields of answers that carry, or for HEAD would carry, the file.
fn describe(headers: &mut HeaderMap, file: &Versions, version: &Version) {
    if !version.is_made() {
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(coding) = version.coding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    if file.is_users && &*file.extension == "svg" {
        headers.insert(CONTENT_SECURITY_POLICY, SVG_POLICY);
    }
    if file.is_users && is_active(&file.extension) {
        headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    }
}

/// Status, fields and pieces of an answer with body.
fn lay_out(
    exchange: &Exchange,
    file: &Versions,
    version: &Version,
    plan: &Plan,
) -> (StatusCode, HeaderMap, Vec<Piece>) {
    let size = version.size();
    let mut headers = state(file, version);
    describe(&mut headers, file, version);
    let content_range = |part: &Range<u64>| format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1));
    let (status, content_type, pieces) = match plan {
        Plan::Parts(parts) if let [part] = parts.as_slice() => {
            if let Ok(range) = HeaderValue::try_from(content_range(part)) {
                headers.insert(CONTENT_RANGE, range);
            }
            (
                StatusCode::PARTIAL_CONTENT,
                file.content_type.clone(),
                vec![Piece::File(part.clone())],
            )
        }
        Plan::Parts(parts) => {
            let kind = file.content_type.to_str().unwrap_or_default();
            // Drawn for this request, so no file can hold it on purpose.
            let boundary = format!("part-{}", exchange.id);
            let mut pieces = Vec::with_capacity(2 * parts.len() + 1);
            for part in parts {
                let range = content_range(part);
                let text = format!("\r\n--{boundary}\r\ncontent-type: {kind}\r\ncontent-range: {range}\r\n\r\n");
                pieces.extend([Piece::Text(text.into()), Piece::File(part.clone())]);
            }
            pieces.push(Piece::Text(format!("\r\n--{boundary}--\r\n").into()));
            let kind = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}"));
            (
                StatusCode::PARTIAL_CONTENT,
                kind.unwrap_or(file.content_type.clone()),
                pieces,
            )
        }
        Plan::Whole | Plan::Bodiless(_) => (StatusCode::OK, file.content_type.clone(), vec![Piece::File(0..size)]),
    };
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, pieces.iter().map(Piece::size).sum::<u64>().into());
    (status, headers, pieces)
}
