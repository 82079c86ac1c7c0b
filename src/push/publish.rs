//! What somebody may publish and ask, by what they are. Pure.

use std::sync::Arc;

use super::channel::{self, Address, Id, MOST};
use super::frame::protobuf::{self, ChannelState, Command, IncomingMessage, Receiver};
use super::frame::rpc::{self, Fault};
use super::key::Key;
use super::message::{Body, EXPIRY_MAX, Extras, Publication, Sender};
use super::refusal::Refusal;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The portal, over loopback.
    Portal,
    /// A client in this name.
    Client(Sender),
}

impl By {
    fn sender(self) -> Sender {
        match self {
            By::Portal => Sender::Backend,
            By::Client(sender) => sender,
        }
    }
}

/// What is to be done for a command.
#[derive(Debug)]
pub enum Wish {
    Publish(Vec<Publication>),
    /// Whether these are online.
    Stats(Vec<Asked>),
    ServerStats,
}

/// A channel that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub id: Id,
    pub is_private: bool,
}

impl Asked {
    pub fn address(self) -> Address {
        match self.is_private {
            true => Address::Private(self.id),
            false => Address::Public(self.id),
        }
    }

    pub fn answer(self, is_online: bool) -> ChannelState {
        ChannelState {
            id: self.id.0.to_vec().into(),
            is_private: self.is_private,
            is_online,
        }
    }
}

/// A command of generation 4.
pub fn command(command: Command, by: By, key: &Key) -> Result<Wish, Refusal> {
    match (command, by) {
        (Command::Publish(request), _) if request.messages.is_empty() => Err(Refusal::Empty),
        (Command::Publish(request), _) => {
            let messages = request.messages.into_iter();
            let publications = messages.map(|message| publication(message, by, key));
            publications.collect::<Result<_, _>>().map(Wish::Publish)
        }
        (Command::Stats(request), _) => {
            let channels = request.channels.iter();
            let asked = channels.map(|channel| allowed(channel, by, key));
            asked.collect::<Result<_, _>>().map(Wish::Stats)
        }
        (Command::ServerStats(_), By::Portal) => Ok(Wish::ServerStats),
        (Command::ServerStats(_), By::Client(_)) => Err(Refusal::CommandNotAllowed),
    }
}

fn publication(message: IncomingMessage, by: By, key: &Key) -> Result<Publication, Refusal> {
    if message.receivers.is_empty() {
        return Err(Refusal::NoChannels);
    }
    let mut receivers = Vec::with_capacity(message.receivers.len());
    for receiver in &message.receivers {
        let receiver = allowed(receiver, by, key)?;
        receivers.push(receiver.address());
        // The portal names a channel that has no public id without saying that it is private.
        if by == By::Portal && !receiver.is_private {
            receivers.push(Address::Private(receiver.id));
        }
    }
    Ok(Publication {
        receivers,
        sender: by.sender(),
        body: Body::new(message.body)?,
        expiry: message.expiry,
        extras: None,
    })
}

/// Clients reach public ids that the portal has given them, and no others.
fn allowed(receiver: &Receiver, by: By, key: &Key) -> Result<Asked, Refusal> {
    let (id, is_private) = (protobuf::id(receiver)?, receiver.is_private);
    match by {
        By::Portal => Ok(Asked { id, is_private }),
        By::Client(_) if is_private => Err(Refusal::PrivateReceiver),
        By::Client(_) if !key.has_signed_receiver(id, &receiver.signature) => Err(Refusal::WrongSignature),
        By::Client(_) => Ok(Asked { id, is_private }),
    }
}

/// The portal's channels of a query. A public id must be signed even by those who are trusted.
pub fn channels(list: &str, key: &Key) -> Result<Vec<Id>, Refusal> {
    let items = channel::parse(list)?;
    match items.iter().all(|item| item.public.is_none() || key.has_signed(item)) {
        true => Ok(items.into_iter().map(|item| item.private).collect()),
        false => Err(Refusal::WrongChannel),
    }
}

/// The portal's message as plain text to channels of a query.
pub fn text(list: &str, body: String, expiry: u32, key: &Key) -> Result<Publication, Refusal> {
    let receivers = channels(list, key)?;
    Ok(Publication {
        receivers: receivers.into_iter().map(Address::Private).collect(),
        sender: Sender::Backend,
        body: Body::new(body)?,
        expiry,
        extras: None,
    })
}

/// A publication of generation 5.
pub fn call(publish: rpc::Publish, by: By, key: &Key) -> Result<Publication, Fault> {
    let users = publish.user_list.iter().map(|user| user.get().map(Address::User));
    let channels = publish.channel_list.iter().map(|receiver| match by {
        By::Portal => receiver.id().map(Address::Private),
        By::Client(_) => {
            let (id, signature) = receiver.signed()?;
            key.has_signed_receiver(id, &signature).then_some(Address::Public(id))
        }
    });
    let receivers: Option<Vec<Address>> = users.chain(channels).collect();
    let receivers = receivers.ok_or(Fault::Params)?;
    let is_too_many = by != By::Portal && receivers.len() > MOST;
    if receivers.is_empty() || is_too_many {
        return Err(Fault::Params);
    }
    let extras = Extras {
        user_params: publish.user_params()?,
        dictionary: publish.dictionary(),
    };
    let has_extras = !extras.user_params.is_empty() || extras.dictionary.is_some();
    Ok(Publication {
        receivers,
        sender: by.sender(),
        body: Body::new(Box::<str>::from(publish.body).into()).map_err(|_| Fault::Params)?,
        expiry: publish.expiry.unwrap_or(match by {
            By::Portal => EXPIRY_MAX,
            By::Client(_) => 0,
        }),
        extras: has_extras.then(|| Arc::new(extras)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::frame::protobuf::{ChannelStatsRequest, IncomingMessages, ServerStatsRequest};
    use bytes::Bytes;
    use data_encoding::HEXLOWER;

    const PUBLIC: &str = "fedcba9876543210fedcba9876543210";
    const CLIENT: By = By::Client(Sender::User(7));

    fn key() -> Key {
        Key::new("bitrix-node-test-key")
    }

    fn id() -> Id {
        Id::parse(PUBLIC).expect("an id")
    }

    fn receiver(is_private: bool, signature: &str) -> Receiver {
        Receiver {
            id: Bytes::copy_from_slice(&id().0),
            is_private,
            signature: HEXLOWER.decode(signature.as_bytes()).expect("hexadecimal").into(),
        }
    }

    fn publish(receivers: Vec<Receiver>, body: &str, by: By) -> Result<Publication, Refusal> {
        let message = IncomingMessage {
            receivers,
            body: body.into(),
            expiry: 5,
        };
        let messages = vec![message];
        match command(Command::Publish(IncomingMessages { messages }), by, &key())? {
            Wish::Publish(mut publications) => Ok(publications.remove(0)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn clients_reach_signed_public_ids_alone() {
        let signature = key().sign(&format!("public:{PUBLIC}"));
        let publication = publish(vec![receiver(false, &signature)], "{}", CLIENT).expect("allowed");
        assert_eq!(publication.receivers, [Address::Public(id())]);
        assert_eq!(publication.sender, Sender::User(7));
        for (refused, why) in [
            (receiver(false, ""), Refusal::WrongSignature),
            (receiver(false, &key().sign(PUBLIC)), Refusal::WrongSignature),
            (receiver(true, &signature), Refusal::PrivateReceiver),
            (
                Receiver {
                    id: Bytes::from_static(b"short"),
                    ..receiver(false, &signature)
                },
                Refusal::InvalidChannel,
            ),
        ] {
            let receivers = vec![receiver(false, &signature), refused];
            assert_eq!(publish(receivers, "{}", CLIENT).err(), Some(why));
        }
        assert_eq!(publish(vec![], "{}", CLIENT).err(), Some(Refusal::NoChannels));
        assert_eq!(
            publish(vec![receiver(false, &signature)], "{", CLIENT).err(),
            Some(Refusal::WrongData)
        );
    }

    #[test]
    fn the_portal_reaches_everybody() {
        let publication = publish(vec![receiver(true, ""), receiver(false, "")], "{}", By::Portal).expect("allowed");
        let (private, public) = (Address::Private(id()), Address::Public(id()));
        assert_eq!(publication.receivers, [private, public, private]);
        assert_eq!(publication.sender, Sender::Backend);
        assert!(channels(PUBLIC, &key()).is_ok());
        assert_eq!(
            channels(&format!("{PUBLIC}:{PUBLIC}"), &key()).err(),
            Some(Refusal::WrongChannel)
        );
    }

    #[test]
    fn the_servers_numbers_are_not_for_clients() {
        let ask = |by| command(Command::ServerStats(ServerStatsRequest {}), by, &key());
        assert_eq!(ask(CLIENT).err(), Some(Refusal::CommandNotAllowed));
        assert!(matches!(ask(By::Portal), Ok(Wish::ServerStats)));
        let channels = vec![receiver(false, "")];
        let stats = command(Command::Stats(ChannelStatsRequest { channels }), CLIENT, &key());
        assert_eq!(stats.err(), Some(Refusal::WrongSignature));
    }

    #[test]
    fn calls_of_generation_5_follow_the_same_rules() {
        let read = |text: &str| -> rpc::Publish { serde_json::from_str(text).expect("well formed") };
        let signature = key().sign(&format!("public:{PUBLIC}"));
        let text = format!(r#"{{"userList":[3],"channelList":["{PUBLIC}.{signature}"],"body":{{"a":1}},"expiry":9}}"#);
        let publication = call(read(&text), CLIENT, &key()).expect("allowed");
        assert_eq!(publication.receivers, [Address::User(3), Address::Public(id())]);
        assert_eq!((publication.expiry, publication.extras.is_none()), (9, true));
        let portal =
            format!(r#"{{"channelList":["{PUBLIC}"],"body":{{}},"user_params":{{"3":{{}}}},"dictionary":[]}}"#);
        let publication = call(read(&portal), By::Portal, &key()).expect("allowed");
        assert_eq!(publication.receivers, [Address::Private(id())]);
        assert_eq!(publication.expiry, EXPIRY_MAX);
        assert!(publication.extras.expect("some").user_params.contains_key(&3));
        for text in [
            portal.as_str(),
            r#"{"body":{}}"#,
            r#"{"userList":["x"],"body":{}}"#,
            &format!(r#"{{"userList":[{}1],"body":{{}}}}"#, "1,".repeat(100)),
        ] {
            assert_eq!(call(read(text), CLIENT, &key()).err(), Some(Fault::Params), "{text}");
        }
    }
}
