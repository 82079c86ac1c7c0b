//! The machine's side of a join: meets a node of the cluster, makes sure that it is one, then asks.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::codec::{self, ANSWER_MAX, Answer, Request, Token, Welcome};
use crate::net::mesh::identity::certificate_from_pem;
use crate::net::mesh::{ConnectError, Fingerprint, Name, guest};

const CONNECT: Duration = Duration::from_secs(5);
/// The cluster commits, and its supervisor signs.
const ANSWER: Duration = Duration::from_secs(90);

/// What is seen of a cluster before anything is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    pub cluster: Name,
    /// This machine's address on the way there.
    pub own: SocketAddr,
}

/// Makes sure that a node of the token's cluster listens there. Sends nothing of the token.
pub async fn meet(address: SocketAddr, token: &Token) -> anyhow::Result<Met> {
    let tcp = connect(address).await?;
    let own = tcp.local_addr().context("this machine's address")?;
    let (mut stream, cluster) = secure(tcp, address, token).await?;
    // It ends in order: nothing was asked.
    let _ = timeout(CONNECT, stream.shutdown()).await;
    Ok(Met { cluster, own })
}

/// Asks to be taken in. An error may leave the machine let in already: asking again with the same key is safe.
pub async fn ask(address: SocketAddr, token: &Token, request: &Request) -> anyhow::Result<Welcome> {
    let (mut stream, _) = secure(connect(address).await?, address, token).await?;
    let answered = timeout(ANSWER, async {
        stream.write_all(&codec::encode(request)).await?;
        let mut head = [0; 4];
        stream.read_exact(&mut head).await?;
        let mut body = vec![0; codec::length(head, ANSWER_MAX).map_err(io::Error::other)?];
        stream.read_exact(&mut body).await?;
        codec::decode::<Answer>(&body).map_err(io::Error::other)
    });
    let answer = answered.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut));
    let answer = answer
        .and_then(|answer| answer)
        .with_context(|| format!("the node at {address} gave no answer; repeat the same command"))?;
    let welcome = match answer {
        Answer::Welcome(welcome) => *welcome,
        Answer::Refused { why } => bail!("the cluster refuses: {why}"),
    };
    check(&welcome, address, token)?;
    Ok(welcome)
}

/// Whether the answer is of the token's cluster; that the certificate is this machine's is looked at when it is put in place.
pub(super) fn check(welcome: &Welcome, address: SocketAddr, token: &Token) -> anyhow::Result<()> {
    let authority = certificate_from_pem(&welcome.authority).context("the authority's certificate")?;
    ensure!(
        Fingerprint::of(&authority) == token.authority,
        "the node at {address} answered with another authority than the token's"
    );
    Ok(())
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let connected = timeout(CONNECT, TcpStream::connect(address)).await;
    let connected = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut));
    connected.and_then(|stream| stream).with_context(|| {
        format!("cannot reach {address}; does bitrix-node run there, and does no firewall stand between?")
    })
}

async fn secure(
    tcp: TcpStream,
    address: SocketAddr,
    token: &Token,
) -> anyhow::Result<(impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, Name)> {
    match guest::connect(tcp, token.authority).await {
        Ok(met) => Ok(met),
        Err(ConnectError::ForeignAuthority) => bail!(
            "the node at {address} is not of the cluster that this token is for: its authority has another fingerprint than {}; \
             nothing secret was sent",
            token.authority
        ),
        Err(ConnectError::Expired) => {
            bail!("the certificate of the node at {address} does not hold now; is the clock of this machine right?")
        }
        Err(error) => Err(error).with_context(|| format!("no node of a cluster answers at {address}")),
    }
}
