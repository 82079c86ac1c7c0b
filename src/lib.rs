//! bitrix-node: one executable that turns bare Linux machines into a Bitrix24 portal.

pub mod base;
pub mod config;
pub mod host;
pub mod metrics;
pub mod net;

pub mod cache;
pub mod db;
pub mod php;
pub mod portal;
pub mod proxy;

pub mod agent;

pub mod node;

pub mod cli;
pub mod storage;
