//! One helper per need.

pub mod command;
pub mod composite;
pub mod cutter;
pub mod daemon;
pub mod eventually;
pub mod front;
pub mod fronts;
pub mod fuse;
pub mod ganesha;
pub mod gated;
#[allow(dead_code)]
pub mod hostile;
pub mod http;
pub mod http2;
pub mod http3;
pub mod load;
pub mod mariadb;
pub mod module;
pub mod netns;
pub mod node;
pub mod pebble;
pub mod php;
pub mod program;
pub mod responder;
pub mod storage;
pub mod tls;
pub mod upstream;
pub mod ws;
