//! From a path to its target: the deny list, files, scripts, index pages, the fallback. Looks at the disk where `route` needs to know.

use http::header::{ACCEPT_ENCODING, CONTENT_DISPOSITION, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};

use super::accel::{self, Aim};
use super::answer;
use super::balance::{Balancer, Local};
use super::cdn;
use super::dav;
use super::error::{Error, Kind};
use super::exchange::{Body, Exchange, FromFile, Target};
use super::fastcgi::Script;
use super::firewall::Watch;
use super::flood::Flood;
use super::metrics::Metrics;
use super::path::Path;
use super::record::Record;
use super::route::{self, Plan, Seen, Step};
use super::setup::Setup;
use super::site::Site;
use super::static_file::Found;

/// A request on its way to its target.
pub struct Visit<'a> {
    pub setup: &'a Setup,
    /// Of the exchange's host.
    pub site: &'a Site,
    pub balancer: &'a Balancer,
    pub flood: &'a Flood,
    pub exchange: &'a mut Exchange,
    /// `None`: nobody waits for it, and the log has no line.
    pub record: Option<&'a mut Record>,
    pub metrics: &'a Metrics,
    /// The firewall wants to see the answer.
    pub watch: Option<Watch>,
}

impl Visit<'_> {
    /// The target's answer, as the firewall lets it out.
    pub async fn route(&mut self, body: Body) -> Result<Response<Body>, Error> {
        match self.watch {
            None => self.lead(body).await,
            // In a box: where no answer is judged, no request shall have room for it.
            Some(_) => Box::pin(self.judged(body)).await,
        }
    }

    async fn judged(&mut self, body: Body) -> Result<Response<Body>, Error> {
        let answer = self.lead(body).await?;
        let is_file = self.exchange.is_file(&answer);
        match &self.setup.firewall {
            Some(firewall) if !is_file => {
                firewall
                    .judge(self.exchange, &mut self.watch, answer, self.metrics)
                    .await
            }
            _ => Ok(answer),
        }
    }

    async fn lead(&mut self, body: Body) -> Result<Response<Body>, Error> {
        let plan = route::plan(&self.setup.prefixes, &self.exchange.path);
        if !self.setup.is_open(self.exchange.local.port(), &plan) {
            return Err(Error::new(Kind::NotFound, "at this port only the push server answers"));
        }
        if cdn::is_at(&self.site.cdn_host, &self.exchange.host) && !matches!(plan, Plan::Deny(_) | Plan::File) {
            return Err(nothing_but_files());
        }
        match plan {
            Plan::Deny(kind) => Err(denied(kind)),
            Plan::Upstream(place) => {
                let upstream = self.setup.upstreams.get(place);
                let upstream = upstream.ok_or_else(|| Error::new(Kind::Internal, "a route without an upstream"))?;
                self.aim(Target::Upstream);
                self.count()?;
                let codings = self.ask_plain();
                let answer = upstream.call(self.exchange, body).await;
                self.put_codings(codings);
                answer
            }
            _ if self.is_elsewhere() => self.balance(None, body).await,
            Plan::Script { script, path_info } => match self.site.files.look(&script).await? {
                Found::File(_) => self.php(&script, path_info, body).await,
                _ => self.fallback(body).await,
            },
            Plan::File => self.file(body).await,
        }
    }

    async fn file(&mut self, body: Body) -> Result<Response<Body>, Error> {
        let found = self.site.files.look(&self.exchange.path).await?;
        if dav::is_phps(&self.exchange.path, &self.exchange.request.method) {
            return match found {
                Found::Folder => self.index(body).await,
                _ => self.fallback(body).await,
            };
        }
        match (route::settle(&self.exchange.path, seen(&found)), found) {
            (Step::Serve, Found::File(entry)) => {
                self.allow(&self.exchange.path)?;
                self.aim(Target::Static);
                match self.site.files.serve(self.exchange, entry).await {
                    // It went since it was looked at.
                    Err(error) if error.kind == Kind::NotFound => self.fallback(body).await,
                    served => served,
                }
            }
            (Step::AddSlash, _) => {
                let query = self.exchange.request.uri.query();
                let query = query.map(|query| format!("?{query}")).unwrap_or_default();
                answer::moved(&format!("{}/{query}", self.exchange.path.escaped()))
            }
            (Step::Index, _) => self.index(body).await,
            _ => self.fallback(body).await,
        }
    }

    /// The index page of a folder. The rules of the page's own path hold for it.
    async fn index(&mut self, body: Body) -> Result<Response<Body>, Error> {
        for name in [route::SCRIPT_INDEX, route::STATIC_INDEX] {
            let page = self.exchange.path.child(name);
            let Found::File(entry) = self.site.files.look(&page).await? else {
                continue;
            };
            return match route::plan(&self.setup.prefixes, &page) {
                Plan::Script { script, path_info } => self.php(&script, path_info, body).await,
                Plan::Deny(kind) => Err(denied(kind)),
                Plan::File | Plan::Upstream(_) => {
                    self.allow(&page)?;
                    self.aim(Target::Static);
                    self.site.files.serve(self.exchange, entry).await
                }
            };
        }
        self.fallback(body).await
    }

    async fn fallback(&mut self, body: Body) -> Result<Response<Body>, Error> {
        let site = self.site;
        if cdn::is_at(&site.cdn_host, &self.exchange.host) {
            return Err(nothing_but_files());
        }
        match site.files.look(&site.fallback).await? {
            Found::File(_) => self.php(&site.fallback, String::new(), body).await,
            _ => Err(Error::new(Kind::NotFound, "no such file, and no fallback")),
        }
    }

    /// Whether the client may have this file by the address that it asked.
    fn allow(&self, path: &Path) -> Result<(), Error> {
        match self.setup.cdn.allows(path, self.exchange.request.uri.query()) {
            true => Ok(()),
            false => Err(Error::new(Kind::Forbidden, "the address has no signature that holds")),
        }
    }

    /// The way to PHP. A page that the portal stored spares it.
    async fn php(&mut self, script: &Path, path_info: String, body: Body) -> Result<Response<Body>, Error> {
        if cdn::is_at(&self.site.cdn_host, &self.exchange.host) {
            return Err(nothing_but_files());
        }
        if let Some(page) = self.stored().await {
            self.aim(Target::Static);
            return Ok(page);
        }
        let script = Script {
            root: self.site.root.clone(),
            name: script.as_str().to_string(),
            path_info,
        };
        let php = &self.setup.php;
        let answer = self.balance(Some(&Local { php, script }), body).await?;
        self.hand_over(answer).await
    }

    /// The page that the portal stored for such a request. One that is led to a network comes plain, and is compressed behind that.
    async fn stored(&mut self) -> Option<Response<Body>> {
        let site = self.site;
        if site.cdn_host.is_empty() {
            return site.pages.answer(&site.files, self.exchange).await;
        }
        let codings = self.take_codings();
        let page = site.pages.answer(&site.files, self.exchange).await;
        self.put_codings(codings);
        page
    }

    /// Of a target whose answer will be judged. It is compressed on the way out, as for any answer.
    fn ask_plain(&mut self) -> Vec<HeaderValue> {
        match self.watch {
            Some(_) => self.take_codings(),
            None => Vec::new(),
        }
    }

    fn take_codings(&mut self) -> Vec<HeaderValue> {
        let headers = &mut self.exchange.request.headers;
        let codings = headers.get_all(ACCEPT_ENCODING).iter().cloned().collect();
        headers.remove(ACCEPT_ENCODING);
        codings
    }

    fn put_codings(&mut self, codings: Vec<HeaderValue>) {
        for coding in codings {
            self.exchange.request.headers.append(ACCEPT_ENCODING, coding);
        }
    }

    /// What PHP lets the front do instead of answering.
    async fn hand_over(&mut self, mut answer: Response<Body>) -> Result<Response<Body>, Error> {
        match accel::take(answer.headers_mut()) {
            // In a box: it is seldom, and every request would have room for it.
            Some(order) => Box::pin(self.follow(order, answer)).await,
            None => Ok(answer),
        }
    }

    /// At most twice, for what must be made first.
    async fn follow(&mut self, order: accel::Order, answer: Response<Body>) -> Result<Response<Body>, Error> {
        let php = answer.headers().clone();
        drop(answer);
        let made = match self.deliver(&order).await {
            Ok(answer) if !is_failure(answer.status()) || order.source.is_none() => {
                return self.told(answer, &php, &order);
            }
            Err(error) if order.source.is_none() || error.kind == Kind::Forbidden => return Err(error),
            _ => order.source.as_deref().unwrap_or_default(),
        };
        let mut answer = self.make(made).await?;
        if let Some(order) = accel::take(answer.headers_mut()) {
            let php = answer.headers().clone();
            let answer = self.deliver(&order).await?;
            return self.told(answer, &php, &order);
        }
        Ok(answer)
    }

    /// The file or object of an order.
    async fn deliver(&mut self, order: &accel::Order) -> Result<Response<Body>, Error> {
        if self.exchange.request.method != Method::HEAD {
            self.exchange.request.method = Method::GET;
        }
        let aim = accel::aim(&order.target);
        let aim = aim.map_err(|why| Error::new(Kind::Forbidden, format!("X-Accel-Redirect of PHP: {why}")))?;
        match aim {
            Aim::File(path) => match self.site.files.look(&path).await? {
                Found::File(entry) => {
                    self.aim(Target::Static);
                    self.site.files.serve(self.exchange, entry).await
                }
                _ => Err(Error::new(Kind::NotFound, "X-Accel-Redirect of PHP leads to no file")),
            },
            Aim::Object(object) => {
                self.aim(Target::Upstream);
                self.setup.cloud.fetch(self.exchange, &object).await
            }
        }
    }

    /// The file with what PHP says of it.
    fn told(&self, mut answer: Response<Body>, php: &HeaderMap, order: &accel::Order) -> Result<Response<Body>, Error> {
        accel::merge(answer.headers_mut(), php);
        answer.extensions_mut().insert(FromFile);
        if let Some(disposition) = order.disposition.clone().filter(|_| answer.status() == StatusCode::OK) {
            answer.headers_mut().insert(CONTENT_DISPOSITION, disposition);
        }
        Ok(answer)
    }

    /// Asks PHP for what is not there yet. `source`: a path with its query.
    async fn make(&mut self, source: &str) -> Result<Response<Body>, Error> {
        let broken = |why: String| Error::new(Kind::Upstream, format!("X-Gen-Src of PHP: {why}"));
        let uri: Uri = source.parse().map_err(|error| broken(format!("{error}")))?;
        let path = Path::parse(uri.path()).map_err(|why| broken(why.into()))?;
        let Plan::Script { script, path_info } = route::plan(&self.setup.prefixes, &path) else {
            return Err(broken("no script".into()));
        };
        let Found::File(_) = self.site.files.look(&script).await? else {
            return Err(Error::new(Kind::NotFound, "X-Gen-Src of PHP leads to no script"));
        };
        self.exchange.request.uri = uri;
        self.exchange.path = path;
        let script = Script {
            root: self.site.root.clone(),
            name: script.as_str().to_string(),
            path_info,
        };
        let (php, empty) = (&self.setup.php, Empty::new().map_err(|never| match never {}));
        self.balance(Some(&Local { php, script }), empty.boxed_unsync()).await
    }

    /// Whether the portal's files are missing here and another node has them.
    fn is_elsewhere(&self) -> bool {
        !self.exchange.is_hop && self.balancer.is_elsewhere()
    }

    async fn balance(&mut self, local: Option<&Local<'_>>, body: Body) -> Result<Response<Body>, Error> {
        let manner = self.setup.manner;
        // Until it is known better, for a client that leaves meanwhile.
        self.aim(if local.is_some() { Target::Php } else { Target::Peer });
        self.count()?;
        let codings = self.ask_plain();
        let answer = self.balancer.call(self.exchange, local, manner, body).await;
        self.put_codings(codings);
        self.aim(self.exchange.target);
        answer
    }

    /// The limits of requests that cost more than a file.
    fn count(&self) -> Result<(), Error> {
        match self.exchange.is_hop {
            true => Ok(()),
            false => self.flood.work(&self.setup.quotas, self.exchange),
        }
    }

    fn aim(&mut self, target: Target) {
        self.exchange.target = target;
        if let Some(record) = &mut self.record {
            record.target(target);
        }
    }
}

fn seen(found: &Found) -> Seen {
    match found {
        Found::File(_) => Seen::File,
        Found::Folder => Seen::Folder,
        Found::Missing => Seen::Missing,
    }
}

/// Answers of a store in whose place PHP makes the object.
fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 403 | 404 | 500 | 502 | 503 | 504)
}

fn nothing_but_files() -> Error {
    Error::new(Kind::NotFound, "under the network's name there are files alone")
}

fn denied(kind: Kind) -> Error {
    Error::new(kind, "a path on the deny list")
}
