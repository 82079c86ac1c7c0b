//! The guard of one run of the portal's jobs: a process of the portal's user that starts PHP, and ends it with all of its group
//! before the hold of the seat is over. It hears of renewals over a pair of sockets; when the supervisor is gone, it ends the run at
//! once. It takes the end of the hold from the clock, whatever becomes of everybody else.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};

use crate::base::service::Socket;
use crate::base::{Scope, clock};
use crate::config;
use crate::host::child::{Child, Launch};
use crate::host::command;
use crate::host::pair::End;
use crate::net::listen;
use crate::php::cli::Settings;

/// The hidden verb of this executable.
pub const VERB: &str = "cron-worker";
/// The name of the socket.
pub const END: &str = "hold";
/// The portal has no jobs. Another code than PHP's own, 255 and 1.
pub const NO_SCRIPT: i32 = 66;
/// This long before the hold ends the run is asked to end, and then it is killed.
pub const TERM: Duration = Duration::from_millis(600);
const KILL: Duration = Duration::from_millis(150);
/// One that runs longer hangs; a backup of a large portal takes half an hour.
const LIMIT: Duration = Duration::from_secs(2 * 3600);
/// Between two looks at the clock: a machine that slept may wake behind the end.
const LOOK: Duration = Duration::from_millis(50);
/// What the program said last is passed on for this long after its end.
const LAST_WORDS: Duration = Duration::from_millis(300);

#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    pub php: PathBuf,
    pub script: PathBuf,
    pub settings: Settings,
    /// Time since boot.
    pub until: Duration,
}

/// A message of the supervisor: the hold's new end.
pub fn renewal(until: Duration) -> Vec<u8> {
    serde_json::to_vec(&until).expect("plain data")
}

/// Runs to the end; returns the exit code of PHP.
pub fn serve(order: &str) -> anyhow::Result<u8> {
    let order: Order = serde_json::from_str(order)?;
    let (count, names) = (config::var("LISTEN_FDS"), config::var("LISTEN_FDNAMES"));
    let sockets = listen::inherited(count.as_deref(), names.as_deref()).context("handed-down sockets")?;
    let end = sockets.into_iter().find_map(|socket| match socket.socket {
        Socket::Pair(end) if socket.name == END => Some(end),
        _ => None,
    });
    let end = end.context("only the supervisor starts this")?;
    if !order.script.is_file() {
        return Ok(u8::try_from(NO_SCRIPT).expect("an exit code"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(guard(&order, end))?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX))
}

async fn guard(order: &Order, end: OwnedFd) -> anyhow::Result<ExitStatus> {
    let end = End::new(end)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child = Child::launch(&launch(order)?)?;
    let scope = Scope::new();
    pass_on(&scope, child.output.take(), tokio::io::stdout());
    pass_on(&scope, child.errors.take(), tokio::io::stderr());
    let (mut until, limit) = (order.until, clock::boot() + LIMIT);
    let mut is_asked = false;
    let status = loop {
        tokio::select! {
            ended = child.wait() => break ended?,
            _ = terminate.recv() => break kill(&mut child).await?,
            heard = end.receive(256) => match heard.ok().filter(|message| !message.is_empty()) {
                Some(message) => until = serde_json::from_slice(&message).unwrap_or(until).max(until),
                // The supervisor is gone.
                None => break kill(&mut child).await?,
            },
            () = tokio::time::sleep(LOOK) => {}
        }
        let (now, over) = (clock::boot(), until.min(limit));
        if now + KILL >= over {
            break kill(&mut child).await?;
        }
        if now + TERM >= over && !is_asked {
            is_asked = true;
            child.signal(Signal::SIGTERM);
        }
    };
    child.end_group().await;
    scope.stop(LAST_WORDS).await;
    Ok(status)
}

/// With the group, which `end_group` ends.
async fn kill(child: &mut Child) -> std::io::Result<ExitStatus> {
    child.signal(Signal::SIGKILL);
    child.wait().await
}

/// Nothing of our environment but what the pool's scripts have.
fn launch(order: &Order) -> anyhow::Result<Launch> {
    let program = command::find("env").context("env is not installed")?;
    let variables = order.settings.environment.iter();
    let variables = variables.map(|(name, value)| OsString::from(format!("{name}={value}")));
    let mut arguments: Vec<OsString> = vec!["-i".into()];
    arguments.extend(variables);
    arguments.push(order.php.clone().into());
    arguments.extend(order.settings.arguments.iter().map(OsString::from));
    arguments.extend(["-f".into(), order.script.clone().into()]);
    Ok(Launch {
        program,
        arguments,
        environment: Vec::new(),
        account: None,
        sockets: Vec::new(),
        when_orphaned: Signal::SIGKILL,
    })
}

fn pass_on(
    scope: &Scope,
    pipe: Option<impl AsyncRead + Unpin + Send + 'static>,
    mut to: impl AsyncWrite + Unpin + Send + 'static,
) {
    if let Some(mut pipe) = pipe {
        scope.spawn(async move {
            // Nobody is left to tell.
            let _ = tokio::io::copy(&mut pipe, &mut to).await;
        });
    }
}
