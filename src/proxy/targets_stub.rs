//! Placeholder targets, so that the front compiles and can be tested before the real ones are merged. To be deleted then.

pub mod static_file {
    use super::super::exchange::{Body, Exchange};
    use super::super::{Error, Kind, path::Path};
    use http::{Method, Response};
    use http_body_util::{BodyExt, Full};
    use std::path::PathBuf;

    pub struct Files(PathBuf);
    pub struct Entry(PathBuf);
    pub enum Found {
        File(Entry),
        Folder,
        Missing,
    }

    impl Files {
        pub fn open(root: &std::path::Path, _follow_symlinks: bool) -> std::io::Result<Files> {
            root.read_dir().map(|_| Files(root.to_path_buf()))
        }

        pub async fn look(&self, path: &Path) -> Result<Found, Error> {
            let place = self.0.join(path.as_str().trim_matches('/'));
            Ok(match std::fs::metadata(&place) {
                Ok(facts) if facts.is_dir() => Found::Folder,
                Ok(_) => Found::File(Entry(place)),
                Err(_) => Found::Missing,
            })
        }

        pub async fn serve(&self, exchange: &Exchange, entry: Entry) -> Result<Response<Body>, Error> {
            if !matches!(exchange.request.method, Method::GET | Method::HEAD) {
                return Err(Error::new(Kind::Method, "not for files"));
            }
            let bytes = std::fs::read(entry.0).map_err(|error| Error::with(Kind::Internal, "read", error))?;
            Ok(Response::new(
                Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync(),
            ))
        }
    }
}

pub mod fastcgi {
    use super::super::exchange::{Body, Exchange};
    use super::super::{Error, Kind};
    use http::Response;
    use std::path::PathBuf;
    use std::time::Duration;

    pub struct PhpSettings {
        pub socket: PathBuf,
        pub root: PathBuf,
        pub kept: usize,
        pub silence: Duration,
    }
    pub struct Php(PhpSettings);
    pub struct Script {
        pub name: String,
        pub path_info: String,
    }

    impl Php {
        pub fn new(settings: PhpSettings) -> Php {
            Php(settings)
        }

        pub async fn call(&self, _: &Exchange, script: &Script, _: Body) -> Result<Response<Body>, Error> {
            let PhpSettings {
                socket,
                root,
                kept,
                silence,
            } = &self.0;
            let detail = format!(
                "{socket:?} {root:?} {kept} {silence:?} {} {}",
                script.name, script.path_info
            );
            Err(Error::new(Kind::Unavailable, detail))
        }
    }
}

pub mod forward {
    use super::super::exchange::{Body, Exchange};
    use super::super::{Error, Kind};
    use crate::base::Scope;
    use http::{Request, Response};
    use http_body_util::BodyExt;
    use hyper::upgrade::OnUpgrade;
    use hyper_util::rt::TokioIo;
    use std::time::Duration;

    pub struct Upstream {
        address: String,
        scope: Scope,
    }

    impl Upstream {
        pub fn new(upstream: &str, _silence: Duration, scope: Scope) -> anyhow::Result<Upstream> {
            let address = upstream.trim_start_matches("http://").to_string();
            Ok(Upstream { address, scope })
        }

        pub async fn call(&self, exchange: &mut Exchange, body: Body) -> Result<Response<Body>, Error> {
            let failed = |error: &dyn std::fmt::Display| Error::new(Kind::Upstream, error.to_string());
            let stream = tokio::net::TcpStream::connect(&self.address)
                .await
                .map_err(|e| failed(&e))?;
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
            let (mut sender, connection) = handshake.await.map_err(|e| failed(&e))?;
            self.scope.spawn(connection.with_upgrades());
            let ours = exchange.request.extensions.remove::<OnUpgrade>();
            let mut parts = exchange.request.clone();
            parts.version = http::Version::HTTP_11;
            let mut answer = sender
                .send_request(Request::from_parts(parts, body))
                .await
                .map_err(|e| failed(&e))?;
            if let (101, Some(ours)) = (answer.status().as_u16(), ours) {
                let theirs = hyper::upgrade::on(&mut answer);
                self.scope.spawn(async move {
                    if let (Ok(ours), Ok(theirs)) = (ours.await, theirs.await) {
                        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await;
                    }
                });
            }
            Ok(answer.map(|body| {
                body.map_err(|e| Error::new(Kind::Upstream, e.to_string()))
                    .boxed_unsync()
            }))
        }
    }
}

pub mod headers {
    pub fn strip_hop_by_hop(headers: &mut http::HeaderMap) {
        for name in [
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "proxy-connection",
        ] {
            headers.remove(name);
        }
    }
}
