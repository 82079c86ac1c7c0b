//! The mesh's door of a front: answers requests that other fronts send, with this node's own PHP and files.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tracing::warn;

use super::hop::{self, Hop};
use super::pulse;
use crate::base::BoxFuture;
use crate::net::mesh::{self, BoxError, Identity, Streams, Tunnel, empty};
use crate::proxy::error::{Error, Kind};
use crate::proxy::service::Front;

pub struct Door {
    front: Arc<Front>,
}

impl Door {
    pub fn new(front: Arc<Front>) -> Self {
        Door { front }
    }

    async fn answer(&self, peer: &Identity, mut request: Request<Incoming>) -> Response<mesh::Body> {
        let balancer = &self.front.balancer;
        if !balancer.knows(&peer.node) {
            warn!(node = %peer.node, "a node that is not in the cluster sends requests");
            return self.refusal(Error::new(Kind::Unavailable, "not in the cluster").unsent());
        }
        if request.headers().contains_key(hop::PULSE) {
            return pulse::answer(balancer.load());
        }
        let Some(hop) = Hop::read(request.headers()) else {
            warn!(node = %peer.node, "a request of another front that does not say where it comes from");
            return self.refusal(Error::new(Kind::Upstream, "no hop"));
        };
        hop::strip(request.headers_mut());
        let mut answer = self.front.answer_hop(hop, request).await;
        balancer.load().write(answer.headers_mut());
        answer.map(|body| body.map_err(BoxError::from).boxed_unsync())
    }

    fn refusal(&self, error: Error) -> Response<mesh::Body> {
        let mut answer = Response::new(empty());
        *answer.status_mut() = StatusCode::BAD_GATEWAY;
        hop::write_fault(&error, answer.headers_mut());
        self.front.balancer.load().write(answer.headers_mut());
        answer
    }
}

impl Streams for Door {
    fn request<'a>(&'a self, peer: &'a Identity, request: Request<Incoming>) -> BoxFuture<'a, Response<mesh::Body>> {
        Box::pin(self.answer(peer, request))
    }

    /// Fronts send each other requests, not byte streams.
    fn open<'a>(&'a self, _peer: &'a Identity, _authority: &'a str) -> BoxFuture<'a, Result<Tunnel, StatusCode>> {
        Box::pin(async { Err(StatusCode::NOT_IMPLEMENTED) })
    }
}
