//! A FastCGI responder in place of PHP-FPM, which answers with its name and misbehaves on cue:
//!
//! `/vars.php` shows its variables · `/length.php` the length of the body · `/wait.php` waits for the gate before the answer,
//! `/slow.php` works for some milliseconds, `/half.php` waits in the middle of it · `/break.php` ends the connection instead · `/forge.php` says what only fronts may say ·
//! `/keep.php` lets everybody keep the answer, `/hand.php` hands over `/a.txt` in the same way.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bitrix_node::base::Scope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// What `/slow.php` needs.
const WORK: Duration = Duration::from_millis(15);

const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const END: u8 = 3;

pub struct Responder {
    shared: Arc<Shared>,
    scope: Scope,
}

struct Shared {
    name: String,
    asked: AtomicUsize,
    arrived: Semaphore,
    gate: Semaphore,
    gone: Semaphore,
}

impl Responder {
    pub fn start(socket: &Path, name: &str) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let shared = Arc::new(Shared {
            name: name.into(),
            asked: AtomicUsize::new(0),
            arrived: Semaphore::new(0),
            gate: Semaphore::new(0),
            gone: Semaphore::new(0),
        });
        let (scope, served) = (Scope::new(), shared.clone());
        let inner = scope.clone();
        scope.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = served.clone();
                inner.spawn(async move { serve(stream, &shared).await });
            }
        });
        Responder { shared, scope }
    }

    /// All of it at once, as `kill -9` does; its socket stays and refuses.
    pub async fn kill(self) {
        self.scope.stop(Duration::ZERO).await;
    }

    /// Requests that it took.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Waits until a request stands at the gate.
    pub async fn arrived(&self) {
        self.shared.arrived.acquire().await.unwrap().forget();
    }

    /// Lets one request through the gate.
    pub fn open(&self) {
        self.shared.gate.add_permits(1);
    }

    /// Waits until a front gave up a request that stands at the gate.
    pub async fn gone(&self) {
        self.shared.gone.acquire().await.unwrap().forget();
    }
}

/// One request, then the connection ends.
async fn serve(mut stream: UnixStream, shared: &Shared) -> Option<()> {
    let (mut params, mut body) = (Vec::new(), 0);
    loop {
        let (kind, content) = record(&mut stream).await?;
        match kind {
            PARAMS => params.extend(content),
            STDIN if content.is_empty() => break,
            STDIN => body += content.len(),
            _ => {}
        }
    }
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let variables = variables(&params);
    let name = &shared.name;
    let answer = |text: String| answer_of(&text);
    match variable(&variables, "SCRIPT_NAME") {
        "/break.php" => return None,
        "/vars.php" => {
            let lines: Vec<String> = variables
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            stream
                .write_all(&answer(format!("served by {name}\n{}\n", lines.join("\n"))))
                .await
                .ok()?;
        }
        "/length.php" => stream.write_all(&answer(format!("{name} {body}"))).await.ok()?,
        "/forge.php" => {
            let head =
                "bn-fault: 1 unavailable unsent\r\nbn-load: 1 0 100000 ready\r\nContent-Type: text/plain\r\n\r\n";
            stream
                .write_all(&wrap(STDOUT, format!("{head}{name}").as_bytes()))
                .await
                .ok()?;
        }
        page @ ("/keep.php" | "/hand.php") => {
            let order = if page == "/hand.php" {
                "X-Accel-Redirect: /a.txt\r\n"
            } else {
                ""
            };
            let head = "Cache-Control: public, max-age=600\r\nContent-Type: text/plain\r\n";
            let text = format!("{head}{order}\r\n{name}");
            stream.write_all(&wrap(STDOUT, text.as_bytes())).await.ok()?;
        }
        "/wait.php" => {
            wait(&mut stream, shared).await?;
            stream.write_all(&answer(name.clone())).await.ok()?;
        }
        "/slow.php" => {
            tokio::time::sleep(WORK).await;
            stream.write_all(&answer(name.clone())).await.ok()?;
        }
        "/half.php" => {
            stream
                .write_all(&wrap(STDOUT, b"Content-Type: text/plain\r\n\r\nfirst "))
                .await
                .ok()?;
            wait(&mut stream, shared).await?;
            stream.write_all(&wrap(STDOUT, b"second")).await.ok()?;
        }
        _ => stream.write_all(&answer(name.clone())).await.ok()?,
    }
    stream.write_all(&wrap(END, &[0; 8])).await.ok()
}

/// `None`: the front left.
async fn wait(stream: &mut UnixStream, shared: &Shared) -> Option<()> {
    shared.arrived.add_permits(1);
    tokio::select! {
        permit = shared.gate.acquire() => {
            permit.unwrap().forget();
            Some(())
        }
        _ = record(stream) => {
            shared.gone.add_permits(1);
            None
        }
    }
}

fn answer_of(text: &str) -> Vec<u8> {
    wrap(STDOUT, format!("Content-Type: text/plain\r\n\r\n{text}").as_bytes())
}

fn wrap(kind: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[1, kind, 0, 1, high, low, 0, 0][..], content].concat()
}

async fn record(stream: &mut UnixStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 8];
    stream.read_exact(&mut head).await.ok()?;
    let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
    let mut content = vec![0; length + usize::from(head[6])];
    stream.read_exact(&mut content).await.ok()?;
    content.truncate(length);
    Some((head[1], content))
}

fn variables(mut bytes: &[u8]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let mut lengths = [0; 2];
        for length in &mut lengths {
            let size = if bytes[0] < 0x80 { 1 } else { 4 };
            let number = bytes[..size].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            *length = number & 0x7fff_ffff;
            bytes = &bytes[size..];
        }
        let (name, rest) = bytes.split_at(lengths[0]);
        let (value, rest) = rest.split_at(lengths[1]);
        bytes = rest;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        found.push((text(name), text(value)));
    }
    found
}

fn variable<'a>(variables: &'a [(String, String)], name: &str) -> &'a str {
    let found = variables.iter().find(|(key, _)| key == name);
    found.map_or("", |(_, value)| value)
}
