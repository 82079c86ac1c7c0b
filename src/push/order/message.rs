//! What hubs say to each other, and how it stands on the wire: a version, then postcard's encoding. Variants are numbered by their order in
//! the source. No I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use super::log::{Append, Portion, Reign, Report};
use super::origins::Origins;
use crate::cluster::council::Epoch;
use crate::push::channel::{Address, Id};
use crate::push::entry::{Entry, Origin};
use crate::push::message::{Body, EXPIRY_MAX, Extras, Message, Publication, Sender};
use crate::push::mid::Mid;

const VERSION: u8 = 1;
/// A batch or a portion goes over its bound by one publish at most, whose texts came in requests of 1 MiB.
pub const LONGEST: usize = 6 << 20;

/// Calls of one hub to another.
#[derive(Clone, Debug)]
pub enum Request {
    /// How far are you?
    Report,
    /// What comes after this?
    Fetch(Mid),
    Append(Append),
    /// To who orders: lay these in, and answer when they are safe.
    Publish(Vec<(Origin, Arc<Publication>)>),
    Presence(Presence),
}

#[derive(Clone, Debug)]
pub enum Reply {
    Report(Report),
    /// With the reign in which its log is whole, and its publishes.
    Portion(Portion, Option<Reign>, Origins),
    /// The end of its log, and whether it has all of the past.
    Taken(Mid, bool),
    /// There was a newer reign.
    Refused(Reign),
    Done,
    /// It does not order, or no more; or too much waits. What was asked for may still happen.
    NotNow,
    /// Presence was taken up to this; `None`: the whole list is wanted.
    Present(Option<u64>),
}

/// Who has a connection at a hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Random, of the process.
    pub process: u64,
    /// The state that this starts from; `None`: from nothing.
    pub from: Option<u64>,
    pub upto: u64,
    pub came: Vec<Address>,
    pub gone: Vec<Address>,
}

#[derive(Serialize, Deserialize)]
enum WireRequest<'a> {
    Report,
    Fetch(Mid),
    Append {
        reign: Reign,
        chain: Epoch,
        base: Mid,
        former: Option<Reign>,
        #[serde(borrow)]
        portion: WirePortion<'a>,
        commit: Mid,
        origins: Origins,
    },
    Publish(#[serde(borrow)] Vec<(Origin, WirePublication<'a>)>),
    Presence(Presence),
}

#[derive(Serialize, Deserialize)]
enum WireReply<'a> {
    Report(Report),
    Portion(#[serde(borrow)] WirePortion<'a>, Option<Reign>, Origins),
    Taken(Mid, bool),
    Refused(Reign),
    Done,
    NotNow,
    Present(Option<u64>),
}

#[derive(Serialize, Deserialize)]
struct WirePortion<'a> {
    after: Mid,
    upto: Mid,
    #[serde(borrow)]
    entries: Vec<WireEntry<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WireEntry<'a> {
    mid: Mid,
    /// Since 1970.
    created: Duration,
    /// How long it lasts from now.
    lasts: Duration,
    origin: Origin,
    #[serde(borrow)]
    publication: WirePublication<'a>,
}

#[derive(Serialize, Deserialize)]
struct WirePublication<'a> {
    receivers: Vec<Address>,
    sender: WireSender,
    body: &'a str,
    expiry: u32,
    #[serde(borrow)]
    extras: Option<WireExtras<'a>>,
}

#[derive(Serialize, Deserialize)]
enum WireSender {
    Backend,
    Client(Id),
    User(u64),
}

#[derive(Serialize, Deserialize)]
struct WireExtras<'a> {
    #[serde(borrow)]
    user_params: Vec<(u64, &'a str)>,
    dictionary: Option<&'a str>,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    #[error("a message of unknown version {0:?}")]
    Version(Option<u8>),
    #[error("a message that cannot be read: {0}")]
    Form(postcard::Error),
    #[error("a message has {0} bytes too many")]
    Trailing(usize),
    #[error("a text that is no JSON")]
    Text,
    #[error("a list without bounds")]
    Bounds,
    #[error("entries that are not in order")]
    Order,
}

pub fn encode_request(request: &Request) -> Vec<u8> {
    encode(&match request {
        Request::Report => WireRequest::Report,
        Request::Fetch(after) => WireRequest::Fetch(*after),
        Request::Append(append) => WireRequest::Append {
            reign: append.reign.clone(),
            chain: append.chain,
            base: append.base,
            former: append.former.clone(),
            portion: WirePortion::of(&append.portion),
            commit: append.commit,
            origins: append.origins.clone(),
        },
        Request::Publish(batch) => {
            let batch = batch.iter();
            let batch = batch.map(|(origin, publication)| (*origin, WirePublication::of(publication)));
            WireRequest::Publish(batch.collect())
        }
        Request::Presence(presence) => WireRequest::Presence(presence.clone()),
    })
}

pub fn decode_request(bytes: &[u8]) -> Result<Request, Malformed> {
    Ok(match decode(bytes)? {
        WireRequest::Report => Request::Report,
        WireRequest::Fetch(after) => Request::Fetch(after),
        WireRequest::Append {
            reign,
            chain,
            base,
            former,
            portion,
            commit,
            origins,
        } => Request::Append(Append {
            reign,
            chain,
            base,
            former,
            portion: portion.read()?,
            commit,
            origins: sound(origins)?,
        }),
        WireRequest::Publish(batch) => {
            let batch = batch.into_iter();
            let batch = batch.map(|(origin, publication)| Ok((origin, Arc::new(publication.read()?))));
            Request::Publish(batch.collect::<Result<_, Malformed>>()?)
        }
        WireRequest::Presence(presence) => Request::Presence(presence),
    })
}

pub fn encode_reply(reply: &Reply) -> Vec<u8> {
    encode(&match reply {
        Reply::Report(report) => WireReply::Report(report.clone()),
        Reply::Portion(portion, whole, origins) => {
            WireReply::Portion(WirePortion::of(portion), whole.clone(), origins.clone())
        }
        Reply::Taken(position, is_whole) => WireReply::Taken(*position, *is_whole),
        Reply::Refused(reign) => WireReply::Refused(reign.clone()),
        Reply::Done => WireReply::Done,
        Reply::NotNow => WireReply::NotNow,
        Reply::Present(upto) => WireReply::Present(*upto),
    })
}

pub fn decode_reply(bytes: &[u8]) -> Result<Reply, Malformed> {
    Ok(match decode(bytes)? {
        WireReply::Report(report) => Reply::Report(report),
        WireReply::Portion(portion, whole, origins) => Reply::Portion(portion.read()?, whole, sound(origins)?),
        WireReply::Taken(position, is_whole) => Reply::Taken(position, is_whole),
        WireReply::Refused(reign) => Reply::Refused(reign),
        WireReply::Done => Reply::Done,
        WireReply::NotNow => Reply::NotNow,
        WireReply::Present(upto) => Reply::Present(upto),
    })
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    let encoded = postcard::to_extend(message, vec![VERSION]);
    encoded.expect("a vector takes all, and lengths are known")
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    let Some((&VERSION, body)) = bytes.split_first() else {
        return Err(Malformed::Version(bytes.first().copied()));
    };
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(Malformed::Trailing(rest.len())),
        Err(error) => Err(Malformed::Form(error)),
    }
}

fn sound(origins: Origins) -> Result<Origins, Malformed> {
    origins.is_sound().then_some(origins).ok_or(Malformed::Bounds)
}

fn raw(text: &str) -> Result<Box<RawValue>, Malformed> {
    RawValue::from_string(text.to_owned()).map_err(|_| Malformed::Text)
}

impl<'a> WirePortion<'a> {
    fn of(portion: &'a Portion) -> Self {
        let entries = portion.entries.iter();
        let entries = entries.map(|(entry, lasts)| WireEntry {
            mid: entry.mid(),
            created: entry.message.created,
            lasts: *lasts,
            origin: entry.origin,
            publication: WirePublication::stored(entry),
        });
        WirePortion {
            after: portion.after,
            upto: portion.upto,
            entries: entries.collect(),
        }
    }

    fn read(self) -> Result<Portion, Malformed> {
        let mut last = self.after;
        let mut entries = Vec::with_capacity(self.entries.len());
        for wire in self.entries {
            if wire.mid <= last || wire.mid > self.upto || wire.mid > Mid::MAX {
                return Err(Malformed::Order);
            }
            last = wire.mid;
            let longest = Duration::from_secs(EXPIRY_MAX.into());
            let publication = wire.publication.read()?;
            let entry = Entry::new(wire.mid, wire.created, &publication, wire.origin);
            entries.push((Arc::new(entry), wire.lasts.min(longest)));
        }
        if self.upto > Mid::MAX {
            return Err(Malformed::Order);
        }
        Ok(Portion {
            after: self.after,
            upto: self.upto,
            entries,
        })
    }
}

impl<'a> WirePublication<'a> {
    fn of(publication: &'a Publication) -> Self {
        WirePublication {
            receivers: publication.receivers.clone(),
            sender: publication.sender.into(),
            body: publication.body.as_str(),
            expiry: publication.expiry,
            extras: publication.extras.as_deref().map(WireExtras::of),
        }
    }

    fn stored(entry: &'a Entry) -> Self {
        let Message {
            sender,
            body,
            expiry,
            extras,
            ..
        } = &*entry.message;
        WirePublication {
            receivers: entry.receivers.to_vec(),
            sender: (*sender).into(),
            body: body.as_str(),
            expiry: *expiry,
            extras: extras.as_deref().map(WireExtras::of),
        }
    }

    fn read(self) -> Result<Publication, Malformed> {
        Ok(Publication {
            receivers: self.receivers,
            sender: self.sender.into(),
            // It is spliced into frames: what is no JSON would break them.
            body: Body::new(self.body.to_owned()).map_err(|_| Malformed::Text)?,
            expiry: self.expiry,
            extras: self.extras.map(WireExtras::read).transpose()?.map(Arc::new),
        })
    }
}

impl<'a> WireExtras<'a> {
    fn of(extras: &'a Extras) -> Self {
        let params = extras.user_params.iter();
        WireExtras {
            user_params: params.map(|(user, params)| (*user, params.get())).collect(),
            dictionary: extras.dictionary.as_deref().map(RawValue::get),
        }
    }

    fn read(self) -> Result<Extras, Malformed> {
        let params = self.user_params.into_iter();
        let params = params.map(|(user, params)| Ok((user, raw(params)?)));
        Ok(Extras {
            user_params: params.collect::<Result<BTreeMap<_, _>, Malformed>>()?,
            dictionary: self.dictionary.map(raw).transpose()?,
        })
    }
}

impl From<Sender> for WireSender {
    fn from(sender: Sender) -> Self {
        match sender {
            Sender::Backend => WireSender::Backend,
            Sender::Client(id) => WireSender::Client(id),
            Sender::User(user) => WireSender::User(user),
        }
    }
}

impl From<WireSender> for Sender {
    fn from(sender: WireSender) -> Self {
        match sender {
            WireSender::Backend => Sender::Backend,
            WireSender::Client(id) => Sender::Client(id),
            WireSender::User(user) => Sender::User(user),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::council::fixture::name;
    use crate::push::history::History;
    use crate::push::message::with_dictionary;
    use crate::push::mid::{Era, Mids};
    use crate::push::order::log::Log;
    use crate::push::order::{lead, part};
    use tokio::time::Instant;

    fn publication(number: u64) -> Publication {
        Publication {
            receivers: vec![
                Address::User(number),
                Address::Private(Id([7; 16])),
                Address::Public(Id([8; 16])),
            ],
            sender: Sender::Client(Id([9; 16])),
            body: Body::new(format!("{{\"n\":{number}}}")).expect("JSON"),
            expiry: 60,
            extras: Some(Arc::new(Extras {
                user_params: [(number, raw("{\"a\":1}").expect("JSON"))].into(),
                dictionary: Some(raw("[]").expect("JSON")),
            })),
        }
    }

    fn portion() -> Portion {
        let mut mids = Mids::of(Era::at(Duration::from_secs(1_701_234_567)), Duration::ZERO);
        let after = mids.last();
        let entries = (1..4).map(|number| {
            let origin = Origin { process: 5, number };
            let created = Duration::from_millis(1_701_234_567_089);
            let entry = Entry::new(mids.take(), created, &publication(number), origin);
            (Arc::new(entry), Duration::from_secs(number))
        });
        let entries: Vec<_> = entries.collect();
        Portion {
            after,
            upto: mids.take(),
            entries,
        }
    }

    fn reign() -> Reign {
        Reign {
            era: Era::at(Duration::from_secs(9)),
            by: name("n2"),
        }
    }

    fn requests() -> Vec<Request> {
        let mut origins = Origins::default();
        origins.note(Origin { process: 1, number: 2 }, portion().upto);
        let append = Append {
            reign: reign(),
            chain: Epoch::default(),
            base: portion().after,
            former: Some(reign()),
            portion: portion(),
            commit: portion().upto,
            origins,
        };
        let presence = Presence {
            process: 1,
            from: Some(2),
            upto: 3,
            came: vec![Address::User(1)],
            gone: vec![Address::User(2)],
        };
        vec![
            Request::Report,
            Request::Fetch(portion().upto),
            Request::Append(append),
            Request::Publish(vec![(Origin::default(), Arc::new(publication(4)))]),
            Request::Presence(presence),
        ]
    }

    fn replies() -> Vec<Reply> {
        let report = Report {
            reign: Some(reign()),
            position: portion().upto,
            ..Report::default()
        };
        vec![
            Reply::Report(report),
            Reply::Portion(portion(), Some(reign()), Origins::default()),
            Reply::Taken(portion().upto, true),
            Reply::Refused(reign()),
            Reply::Done,
            Reply::NotNow,
            Reply::Present(Some(7)),
        ]
    }

    /// Frames that were made meanwhile are no part of a message.
    #[test]
    fn messages_come_back_and_what_is_cut_or_longer_is_refused() {
        for request in requests() {
            let bytes = encode_request(&request);
            let read = decode_request(&bytes).expect("as it was written");
            assert_eq!(format!("{read:?}"), format!("{request:?}"));
            (0..bytes.len()).for_each(|cut| assert!(decode_request(&bytes[..cut]).is_err(), "{cut}"));
            let longer = decode_request(&[&bytes[..], &[0]].concat());
            assert_eq!(longer.err(), Some(Malformed::Trailing(1)));
        }
        for reply in replies() {
            let bytes = encode_reply(&reply);
            let read = decode_reply(&bytes).expect("as it was written");
            assert_eq!(format!("{read:?}"), format!("{reply:?}"));
            (0..bytes.len()).for_each(|cut| assert!(decode_reply(&bytes[..cut]).is_err(), "{cut}"));
        }
        assert_eq!(decode_reply(&[9, 0]).err(), Some(Malformed::Version(Some(9))));
        assert_eq!(decode_request(&[]).err(), Some(Malformed::Version(None)));
    }

    #[test]
    fn entries_out_of_order_are_refused() {
        let refused = |portion| {
            let bytes = encode_reply(&Reply::Portion(portion, None, Origins::default()));
            decode_reply(&bytes).err()
        };
        assert_eq!(refused(portion()), None);
        let mut mixed = portion();
        mixed.entries.swap(0, 1);
        assert_eq!(refused(mixed), Some(Malformed::Order));
        let mut beyond = portion();
        beyond.upto = beyond.after;
        assert_eq!(refused(beyond), Some(Malformed::Order));
    }

    /// Whatever a byte is changed to, nothing panics.
    #[test]
    fn changed_bytes_are_read_or_refused() {
        for request in requests() {
            let bytes = encode_request(&request);
            for at in 0..bytes.len() {
                for change in [1, 0x7f, 0x80, 0xff] {
                    let mut changed = bytes.clone();
                    changed[at] ^= change;
                    let _ = decode_request(&changed);
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_portion_is_short_enough_to_be_sent() {
        let mut mids = Mids::of(Era::at(Duration::from_secs(5)), Duration::ZERO);
        let after = mids.last();
        let entries = (0..20).map(|number| {
            let origin = Origin { process: 5, number };
            let entry = Entry::new(mids.take(), Duration::ZERO, &with_dictionary(number), origin);
            (Arc::new(entry), Duration::from_secs(60))
        });
        let entries: Vec<_> = entries.collect();
        let mut log = Log::new(History::new(64 << 20));
        log.start(after);
        log.lay(Portion {
            after,
            upto: mids.last(),
            entries,
        });
        for bytes in [lead::PORTION, part::PORTION] {
            let portion = log.portion(after, bytes, Instant::now());
            assert!(!portion.entries.is_empty());
            let reply = encode_reply(&Reply::Portion(portion, Some(reign()), Origins::default()));
            assert!(reply.len() <= LONGEST, "{}", reply.len());
        }
    }
}
