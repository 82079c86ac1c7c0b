//! What a decoder finds in the input, and how its reply must look: the seam between the dialects and a connection.

use super::command::{Command, Reply, Terms};
use super::output::Output;
use super::store::{Expiry, KEY_MAX};
use super::{ascii, binary, meta};

/// Reported as this version of memcached: clients switch features on by it.
pub const VERSION: &str = "1.6.18-bitrix-node";

/// The front of the input.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// More bytes are needed.
    Partial,
    /// A whole request; its line or header has `size` bytes.
    Whole { size: usize, request: Request<'a> },
    /// No request will ever come of this: close.
    Hopeless,
}

#[derive(Debug)]
pub enum Request<'a> {
    One(Command<'a>, Form<'a>),
    Many(Many<'a>),
    Store(Head<'a>),
    Refusal(Refusal<'a>),
}

/// A text `get` of any number of keys.
#[derive(Debug)]
pub struct Many<'a> {
    pub keys: ascii::Words<'a>,
    pub touch: Option<Expiry>,
    pub form: ascii::Form,
}

/// The head of a storage command; its value follows.
#[derive(Debug)]
pub struct Head<'a> {
    pub key: &'a [u8],
    pub terms: Terms,
    pub length: usize,
    pub form: Form<'a>,
}

/// Answered without looking at any item.
#[derive(Debug)]
pub struct Refusal<'a> {
    pub reply: Reply,
    pub form: Form<'a>,
    /// Bytes of a value that follow and must be dropped.
    pub skip: usize,
    pub is_last: bool,
}

/// What a dialect must know to write the reply to a request.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    Ascii(ascii::Form),
    Meta(meta::Form<'a>),
    Binary(binary::Form<'a>),
}

impl Form<'_> {
    pub fn encode(&self, reply: &Reply, out: &mut Output) {
        match self {
            Form::Ascii(form) => ascii::encode(form, reply, out),
            Form::Meta(form) => meta::encode(form, reply, out),
            Form::Binary(form) => binary::encode(form, reply, out),
        }
    }

    /// Bytes that follow a value: the text protocols end it with a line end.
    pub fn trailer(&self) -> usize {
        match self {
            Form::Binary(_) => 0,
            _ => 2,
        }
    }
}

/// Room for a key that is decoded from base64.
pub type Scratch = [u8; KEY_MAX];

pub const SCRATCH: Scratch = [0; KEY_MAX];
