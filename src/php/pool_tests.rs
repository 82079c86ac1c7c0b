//! What the real PHP-FPM does by the file that we write.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::pool::{Form, PoolFacts, arguments, render};
use crate::config::parse;

/// Of a test that waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

struct Fpm(Child);

impl Drop for Fpm {
    fn drop(&mut self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).expect("our own child");
        self.0.wait().expect("ended");
    }
}

/// A FastCGI record of request 1.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = (content.len() as u16).to_be_bytes();
    [&[1, kind, 0, 1, high, low, 0, 0], content].concat()
}

/// Asks for a script on a connection that stays open.
fn request(script: &str) -> Vec<u8> {
    let pair = |name: &str, value: &str| {
        let lengths = [name.len() as u8, value.len() as u8];
        [&lengths, name.as_bytes(), value.as_bytes()].concat()
    };
    let params = [pair("SCRIPT_FILENAME", script), pair("REQUEST_METHOD", "GET")].concat();
    [
        record(1, &[0, 1, 1, 0, 0, 0, 0, 0]),
        record(4, &params),
        record(4, &[]),
        record(5, &[]),
    ]
    .concat()
}

#[tokio::test]
async fn what_a_script_leaves_to_do_after_its_answer_does_not_last_for_ever() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = |name: &str| folder.path().join(name);
    // For the portal's user.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
    fs::create_dir(path("php")).expect("made");
    let text = format!(
        "[node]\nrun_dir = \"{0}\"\ndata_dir = \"{0}\"\nuser = \"root\"\n[portal]\nuser = \"www-data\"\n\
         [php]\nmax_execution_time = \"1s\"\n[proxy]\nmax_body_size = \"1KiB\"",
        folder.path().display()
    );
    let config = parse(&text, std::iter::empty()).expect("valid").config;
    let facts = PoolFacts {
        config: &config,
        node: "n1",
        children: 1,
        form: Form::Whole,
    };
    let rendered = render(&facts).expect("rendered");
    // Who is not root may not give the socket away.
    let lines = rendered
        .lines()
        .filter(|line| !line.starts_with("listen.owner") && !line.starts_with("listen.group"));
    let lines: Vec<_> = lines.collect();
    fs::write(path("fpm.conf"), lines.join("\n") + "\n").expect("written");
    let hangs = "<?php register_shutdown_function(function () { fastcgi_finish_request(); while (true) sleep(1); });";
    fs::write(path("hangs.php"), hangs).expect("written");
    #[allow(clippy::disallowed_methods)]
    let process = std::process::Command::new(super::find(&config).expect("PHP-FPM is installed"))
        .args(arguments(&path("fpm.conf"), 1 << 30))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("php-fpm starts");
    let _fpm = Fpm(process);
    let answer = async {
        let mut stream = loop {
            match UnixStream::connect(config.php_socket()).await {
                Ok(stream) => break stream,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        let request = request(&path("hangs.php").to_string_lossy());
        stream.write_all(&request).await.expect("sent");
        let mut answer = Vec::new();
        while matches!(stream.read_buf(&mut answer).await, Ok(1..)) {}
        answer
    };
    let answer = timeout(PATIENCE, answer).await.expect("its process is ended");
    let end = answer.len() - record(3, &[0; 8]).len();
    assert_eq!(answer[end..], record(3, &[0; 8]), "END_REQUEST");
}
