//! A client of one request per connection (HTTP/1.0), for small answers.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

pub async fn get(port: u16, path: &str, headers: &str) -> io::Result<Answer> {
    send(port, &format!("GET {path} HTTP/1.0\r\n{headers}\r\n")).await
}

pub async fn post(port: u16, path: &str, headers: &str, body: &str) -> io::Result<Answer> {
    let length = body.len();
    let request = format!("POST {path} HTTP/1.0\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    send(port, &request).await
}

async fn send(port: u16, request: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let cut = || io::Error::other(format!("cut answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Answer {
        status: status.ok_or_else(cut)?,
        head: head.to_string(),
        body: body.to_string(),
    })
}
