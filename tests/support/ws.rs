//! A WebSocket client that speaks bytes (RFC 6455): what the server sent is exactly what the test sees.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::http;

/// A frame as it came; fragments are not put together, and pings are left to the test.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// With its code.
    Close(u16),
}

pub struct WebSocket {
    stream: TcpStream,
}

impl WebSocket {
    /// Fails with the status where the server does not agree.
    pub fn open(address: SocketAddr, target: &str) -> Result<Self, String> {
        let connect = || -> io::Result<(TcpStream, String)> {
            let mut stream = http::connect(address)?;
            let head = format!(
                "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            stream.write_all(head.as_bytes())?;
            let (mut answer, mut byte) = (Vec::new(), [0]);
            while !answer.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte)?;
                answer.extend(byte);
            }
            Ok((stream, String::from_utf8_lossy(&answer).into_owned()))
        };
        let (stream, answer) = connect().map_err(|error| error.to_string())?;
        let is_agreed = answer.starts_with("HTTP/1.1 101 ") && answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        if is_agreed {
            Ok(WebSocket { stream })
        } else {
            Err(answer)
        }
    }

    pub fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        let length = match head[1] {
            126 => self.length::<2>()?,
            127 => self.length::<8>()?,
            short => short.into(),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        Ok(match head[0] {
            0x81 => Frame::Text(String::from_utf8(payload).map_err(io::Error::other)?),
            0x82 => Frame::Binary(payload),
            0x88 => Frame::Close(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))),
            0x89 => Frame::Ping(payload),
            0x8a => Frame::Pong(payload),
            other => return Err(io::Error::other(format!("an unknown frame {other:#x}"))),
        })
    }

    /// The next text, whatever stands before it.
    pub fn text(&mut self) -> String {
        loop {
            match self.read().unwrap() {
                Frame::Text(text) => return text,
                Frame::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            short @ ..126 => frame.push(0x80 | short as u8),
            medium @ ..0x1_0000 => {
                frame.push(0x80 | 126);
                frame.extend((medium as u16).to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.stream.write_all(&frame)
    }

    /// Bytes as they are, well formed or not.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn length<const SIZE: usize>(&mut self) -> io::Result<usize> {
        let mut bytes = [0; SIZE];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes
            .into_iter()
            .fold(0, |length, byte| length << 8 | usize::from(byte)))
    }
}
