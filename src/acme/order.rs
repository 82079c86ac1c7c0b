//! The steps of an order. Each asks the directory how the order stands, does the next thing, and says what is to be written down.

use std::collections::BTreeSet;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Identifier, NewOrder,
    Order as Placed, OrderStatus, RevocationReason, RevocationRequest,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::error::{self, Error, during};
use crate::cert::{self, Certificate, Challenge, Entry, Facts, Kind, Order, Sealer};
use crate::net::tls;

/// Between two looks at an order that the directory works on.
const LOOK: Duration = Duration::from_secs(1);
/// An order that is not over by then is given up, in seconds; directories do so after days.
const LONGEST: u64 = 3600;

/// The time in seconds since 1970, and a random number.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: u64,
    pub draw: u64,
}

/// URLs of the challenges that the directory was told of, so that it is told once.
pub type Told = BTreeSet<String>;

#[derive(Debug)]
pub enum Step {
    /// Write it down; where challenges are new in it, wait until all fronts know them. Then the next step.
    Write(Entry),
    /// The next step then; there is nothing to write down.
    Wait(Duration),
    /// Write it down: it has its certificate.
    Issued(Entry),
}

/// Takes the next step for the entry. `prefer`: the kind of challenge, where the directory offers it.
pub async fn step(
    account: &Account,
    entry: &Entry,
    sealer: &Sealer,
    prefer: Kind,
    moment: Moment,
    told: &mut Told,
) -> Result<Step, Error> {
    let Some(order) = &entry.order else {
        return place(account, entry, sealer, moment).await;
    };
    if moment.now.saturating_sub(order.since) > LONGEST {
        return Err(Error::refused("the directory did not come to an end with the order"));
    }
    let mut placed = account
        .order(order.url.clone())
        .await
        .map_err(during("look at the order"))?;
    match placed.state().status {
        OrderStatus::Pending => challenges(&mut placed, entry, order, prefer, told).await,
        OrderStatus::Ready => {
            let key = open(entry, order, sealer)?;
            let request = request(&entry.names, &key)?;
            placed
                .finalize_csr(&request)
                .await
                .map_err(during("hand in the request"))?;
            Ok(Step::Wait(LOOK / 4))
        }
        OrderStatus::Processing => Ok(Step::Wait(LOOK)),
        OrderStatus::Valid => fetch(&mut placed, entry, order, sealer, moment).await,
        OrderStatus::Invalid => Err(Error::refused(why(&mut placed).await)),
    }
}

async fn place(account: &Account, entry: &Entry, sealer: &Sealer, moment: Moment) -> Result<Step, Error> {
    let identifiers: Vec<Identifier> = entry.names.iter().cloned().map(Identifier::Dns).collect();
    let wanted = || NewOrder::new(&identifiers);
    let placed = match replaced(entry) {
        Some(old) => match account.new_order(&wanted().replaces(old)).await {
            Ok(placed) => Ok(placed),
            // That it replaces another one is a courtesy which not all directories know, and which each certificate can be done once.
            Err(_) => account.new_order(&wanted()).await,
        },
        None => account.new_order(&wanted()).await,
    };
    let placed = placed.map_err(during("place an order"))?;
    let key = KeyPair::generate().map_err(Error::unreachable)?.serialize_pem();
    let mut next = entry.clone();
    next.order = Some(Order {
        url: placed.url().to_string(),
        key: sealer.seal(&entry.sealed_as(), &key).map_err(Error::unreachable)?,
        since: moment.now,
        challenges: Vec::new(),
    });
    Ok(Step::Write(next))
}

/// The certificate that a new one takes the place of (RFC 9773 §5).
fn replaced(entry: &Entry) -> Option<CertificateIdentifier<'static>> {
    let facts = Facts::of(&entry.certificate.as_ref()?.chain).ok()?;
    facts.id.map(identifier)
}

fn identifier((authority, serial): (String, String)) -> CertificateIdentifier<'static> {
    CertificateIdentifier {
        authority_key_identifier: authority.into(),
        serial: serial.into(),
    }
}

async fn challenges(
    placed: &mut Placed,
    entry: &Entry,
    order: &Order,
    prefer: Kind,
    told: &mut Told,
) -> Result<Step, Error> {
    let mut found = Vec::new();
    let mut all = placed.authorizations();
    while let Some(authorization) = all.next().await {
        let mut authorization = authorization.map_err(during("look at a name"))?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let name = match authorization.identifier().identifier {
            Identifier::Dns(name) => name.clone(),
            _ => return Err(Error::refused("the directory asks for something else than names")),
        };
        let offered = |kind| authorization.challenges.iter().any(|one| one.r#type == kind);
        let Some((kind, r#type)) = kinds(prefer).into_iter().find(|(_, kind)| offered(kind.clone())) else {
            let text = format!("the directory looks at {name} in no way that is known here");
            return Err(Error::refused(text));
        };
        let mut challenge = authorization.challenge(r#type).expect("it was found above");
        let ours = Challenge {
            kind,
            name,
            token: challenge.token.clone(),
            authorization: challenge.key_authorization().as_str().to_string(),
        };
        // First all fronts know the answer; the directory asks as soon as it is told.
        let is_ready = order.challenges.contains(&ours) && challenge.status == ChallengeStatus::Pending;
        if is_ready && !told.contains(&challenge.url) {
            challenge.set_ready().await.map_err(during("tell of a challenge"))?;
            told.insert(challenge.url.clone());
        }
        found.push(ours);
    }
    if found.iter().all(|one| order.challenges.contains(one)) {
        return Ok(Step::Wait(LOOK));
    }
    let mut next = entry.clone();
    next.order = Some(Order {
        challenges: found,
        ..order.clone()
    });
    Ok(Step::Write(next))
}

/// As the directory calls them; the preferred one first.
fn kinds(prefer: Kind) -> [(Kind, ChallengeType); 2] {
    let (http, alpn) = (
        (Kind::Http, ChallengeType::Http01),
        (Kind::TlsAlpn, ChallengeType::TlsAlpn01),
    );
    match prefer {
        Kind::Http => [http, alpn],
        Kind::TlsAlpn => [alpn, http],
    }
}

/// PKCS #10 in DER: nothing but the names.
fn request(names: &[String], key: &str) -> Result<Vec<u8>, Error> {
    let make = || -> Result<_, rcgen::Error> {
        let mut parameters = CertificateParams::new(names)?;
        parameters.distinguished_name = DistinguishedName::new();
        let request = parameters.serialize_request(&KeyPair::from_pem(key)?)?;
        Ok(request.der().to_vec())
    };
    make().map_err(|error| Error::refused(format!("the request cannot be made: {error}")))
}

fn open(entry: &Entry, order: &Order, sealer: &Sealer) -> Result<String, Error> {
    let key = sealer.open(&entry.sealed_as(), &order.key);
    key.map_err(|error| Error::refused(format!("the order's key: {error}")))
}

async fn fetch(
    placed: &mut Placed,
    entry: &Entry,
    order: &Order,
    sealer: &Sealer,
    moment: Moment,
) -> Result<Step, Error> {
    let Some(chain) = placed.certificate().await.map_err(during("fetch the certificate"))? else {
        return Ok(Step::Wait(LOOK));
    };
    let key = open(entry, order, sealer)?;
    let of_no_use = |why: String| Error::refused(format!("the certificate that came is of no use: {why}"));
    tls::check_pair(&chain, &key).map_err(|error| of_no_use(error.to_string()))?;
    let facts = Facts::of(&chain).map_err(|error| of_no_use(error.to_string()))?;
    if let Some(name) = facts.lacks(&entry.names) {
        return Err(of_no_use(format!("it is not for {name}")));
    }
    let mut next = entry.clone();
    next.certificate = Some(Certificate {
        chain,
        key: order.key.clone(),
    });
    next.renew_at = cert::due(facts.begins, facts.ends, moment.draw);
    (next.order, next.failure) = (None, None);
    Ok(Step::Issued(next))
}

/// Why an order came to nothing: what is said of each name, else of the whole.
async fn why(placed: &mut Placed) -> String {
    let whole = placed.state().error.as_ref().map(error::text);
    let mut faults = Vec::new();
    let mut all = placed.authorizations();
    while let Some(Ok(authorization)) = all.next().await {
        let name = authorization.identifier().to_string();
        let problems = authorization.challenges.iter().filter_map(|one| one.error.as_ref());
        faults.extend(problems.map(|problem| format!("{name}: {}", error::text(problem))));
    }
    match faults.is_empty() {
        true => whole.unwrap_or_else(|| "the directory gives no reason".to_string()),
        false => faults.join("; "),
    }
}

/// When the directory suggests to renew it (RFC 9773 §4.2), in seconds since 1970, and how long that holds.
/// `None`: it suggests nothing.
pub async fn window(account: &Account, chain: &str) -> Result<Option<((u64, u64), Duration)>, Error> {
    let Some(id) = Facts::of(chain).ok().and_then(|facts| facts.id) else {
        return Ok(None);
    };
    match account.renewal_info(&identifier(id)).await {
        Ok((found, holds)) => {
            let seconds = |time: i64| u64::try_from(time).unwrap_or_default();
            let window = found.suggested_window;
            let window = (
                seconds(window.start.unix_timestamp()),
                seconds(window.end.unix_timestamp()),
            );
            Ok(Some((window, holds)))
        }
        Err(instant_acme::Error::Unsupported(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Has the directory tell everybody that the certificate is not to be trusted any more. `is_compromised`: somebody else has its key.
pub async fn revoke(account: &Account, chain: &str, is_compromised: bool) -> Result<(), Error> {
    let chain = tls::chain_of(chain.as_bytes()).map_err(|error| Error::refused(error.to_string()))?;
    let leaf = chain.first().ok_or_else(|| Error::refused("holds no certificate"))?;
    let reason = match is_compromised {
        true => RevocationReason::KeyCompromise,
        false => RevocationReason::CessationOfOperation,
    };
    let request = RevocationRequest {
        certificate: leaf,
        reason: Some(reason),
    };
    Ok(account.revoke(&request).await?)
}
