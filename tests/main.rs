//! One integration binary; each file tests one door of the real thing.
#![allow(clippy::unwrap_used)]

mod db;
mod demo;
mod proxy_front;
mod proxy_time;
mod support;
