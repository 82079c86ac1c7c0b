//! A client that speaks bytes: what is sent is exactly what the test wrote.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A server that says nothing for this long hangs, even on a loaded machine.
const SILENCE: Duration = Duration::from_secs(30);

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Gets a path over a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    request(address, "GET", path, "", b"")
}

/// Asks over a connection of its own. `fields` are whole header lines.
pub fn request(address: SocketAddr, method: &str, path: &str, fields: &str, body: &[u8]) -> io::Result<Answer> {
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{length}{fields}\r\n");
    exchange(address, &[head.as_bytes(), body].concat())
}

/// Sends bytes and reads one answer until the server closes or the announced length is there.
pub fn exchange(address: SocketAddr, request: &[u8]) -> io::Result<Answer> {
    let mut stream = connect(address)?;
    // A server that refuses early may close before it has read everything; its answer still counts.
    let _ = stream.write_all(request);
    read_answer(&mut stream)
}

pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    Ok(stream)
}

/// Reads one answer; one without a length ends with the connection.
pub fn read_answer(stream: &mut TcpStream) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 64 << 10];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let answer = Answer {
                status: status(&head)?,
                head,
                body: bytes[end + 4..].to_vec(),
            };
            return read_body(stream, answer);
        }
        match read(stream, &mut chunk) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "closed before a whole head",
                ));
            }
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
            Err(error) => return Err(error),
        }
    }
}

fn read_body(stream: &mut TcpStream, mut answer: Answer) -> io::Result<Answer> {
    let length: Option<usize> = answer.header("content-length").and_then(|length| length.parse().ok());
    let mut chunk = [0; 64 << 10];
    while length.is_none_or(|length| answer.body.len() < length) {
        match read(stream, &mut chunk)? {
            0 if length.is_some() => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed in mid-body")),
            0 => break,
            read => answer.body.extend_from_slice(&chunk[..read]),
        }
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = dechunk(&answer.body).ok_or_else(|| io::Error::other("a broken chunk"))?;
    }
    Ok(answer)
}

/// A signal, as of a child that has ended, interrupts a read that has a time-out (signal(7)).
fn read(stream: &mut TcpStream, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

fn status(head: &str) -> io::Result<u16> {
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.ok_or_else(|| io::Error::other(format!("no status in {head:?}")))
}

fn dechunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(end + 2..end + 2 + size)?);
        bytes = bytes.get(end + 2 + size + 2..)?;
    }
}
