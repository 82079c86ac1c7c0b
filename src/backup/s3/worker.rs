//! The process that speaks with the service: one act, told on standard input, then its end.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig, WriteMultipart};
use tokio::time::timeout;

use super::connector::Connector;
use super::frame;
use super::order::{Act, Order, Place};
use crate::backup::manifest;
use crate::base::Scope;

/// The hidden verb of this program.
pub const VERB: &str = "store-worker";
/// The exit code where there is no such object.
pub const MISSING: i32 = 66;
/// Of an upload: a service takes ten thousand of them for one object, which makes 320 GB.
const PART: usize = 32 << 20;
/// Under way at once; so much memory it takes.
const PARTS: usize = 2;
/// A service that is slower has gone.
const SILENCE: Duration = Duration::from_secs(120);
/// How long a request is repeated.
const PATIENCE: Duration = Duration::from_secs(300);
const LONGEST_ORDER: u64 = 64 << 10;

/// Carries out what standard input says; returns the exit code.
pub fn serve() -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let scope = Scope::new();
        let done = perform(&scope).await;
        scope.stop(Duration::ZERO).await;
        match done {
            Err(error) if is_missing(&error) => Ok(u8::try_from(MISSING).expect("an exit code")),
            done => done.map(|()| 0),
        }
    })
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<object_store::Error>(),
        Some(object_store::Error::NotFound { .. })
    )
}

async fn perform(scope: &Scope) -> anyhow::Result<()> {
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    io::Read::take(&mut input, LONGEST_ORDER).read_until(b'\n', &mut line)?;
    let Order { place, act } = serde_json::from_slice(&line).context("only bitrix-node starts this")?;
    let store = open(&place, scope)?;
    match act {
        Act::List => list(&store, &place).await,
        Act::Put { key } => put(&store, &below(&place, &key), &mut input).await,
        Act::Get { key } => get(&store, &below(&place, &key)).await,
        Act::Remove { backup } => remove(&store, &below(&place, &backup)).await,
    }
}

fn open(place: &Place, scope: &Scope) -> anyhow::Result<AmazonS3> {
    let connector = Connector::new(place.authority.as_deref(), scope)?;
    let retry = RetryConfig {
        retry_timeout: PATIENCE,
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&place.bucket)
        .with_region(&place.region)
        .with_access_key_id(&place.access_key)
        .with_secret_access_key(&place.secret_key)
        .with_client_options(ClientOptions::new())
        .with_retry(retry)
        .with_http_connector(connector);
    if !place.endpoint.is_empty() {
        // Services of one's own have the bucket in the path.
        builder = builder
            .with_allow_http(place.endpoint.starts_with("http://"))
            .with_endpoint(place.endpoint.trim_end_matches('/'));
    }
    Ok(builder.build()?)
}

fn below(place: &Place, key: &str) -> Path {
    Path::from_iter(
        place
            .folder
            .split('/')
            .chain(key.split('/'))
            .filter(|part| !part.is_empty()),
    )
}

async fn list(store: &AmazonS3, place: &Place) -> anyhow::Result<()> {
    let found = store.list_with_delimiter(Some(&below(place, ""))).await?;
    let mut out = io::stdout();
    for folder in found.common_prefixes {
        if let Some(name) = folder.filename() {
            writeln!(out, "{name}")?;
        }
    }
    Ok(())
}

/// In parts. An object is there when all of it is; what was cut off is taken away.
async fn put(store: &AmazonS3, key: &Path, input: &mut impl BufRead) -> anyhow::Result<()> {
    let upload = store.put_multipart(key).await?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
    loop {
        match frame::next(input) {
            Ok(Some(bytes)) => {
                let room = upload.wait_for_capacity(PARTS).await;
                if let Err(error) = room {
                    let _ = upload.abort().await;
                    return Err(error.into());
                }
                upload.put(Bytes::from(bytes));
            }
            Ok(None) => break,
            Err(error) => {
                upload.abort().await?;
                return Err(error).context("the content was cut off");
            }
        }
    }
    upload.finish().await?;
    Ok(())
}

async fn get(store: &AmazonS3, key: &Path) -> anyhow::Result<()> {
    let mut stream = store.get(key).await?.into_stream();
    let mut out = io::stdout().lock();
    while let Some(bytes) = timeout(SILENCE, stream.next())
        .await
        .context("the service says nothing any more")?
    {
        out.write_all(&bytes?)?;
    }
    Ok(out.flush()?)
}

/// The manifest first.
async fn remove(store: &AmazonS3, folder: &Path) -> anyhow::Result<()> {
    let first = folder.clone().join(manifest::NAME);
    match store.delete(&first).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let objects: Vec<_> = store.list(Some(folder)).collect().await;
    for object in objects {
        store.delete(&object?.location).await?;
    }
    Ok(())
}
