//! One integration binary; each file tests one door of the real thing.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod backup;
#[path = "bench/balance.rs"]
mod bench_balance;
#[path = "bench/cache_routed.rs"]
mod bench_cache_routed;
mod cli;
mod db;
mod demo;
mod fuse_mount;
mod hold;
mod house;
mod join;
mod mesh;
mod node;
mod node_cdn;
mod node_cert;
mod node_clients;
mod node_front;
mod node_fuse;
mod node_sites;
mod node_upgrade;
mod proxy_accel;
mod proxy_balance;
mod proxy_clients;
mod proxy_composite;
mod proxy_edge;
mod proxy_front;
mod proxy_http3;
mod proxy_http3_process;
mod proxy_nodes;
mod proxy_purge;
mod proxy_smuggle;
mod proxy_suites;
mod proxy_tickets;
mod proxy_time;
mod proxy_waf;
mod push;
mod push_hostile;
mod registry;
mod relay;
mod sessions;
mod storage;
mod support;
#[path = "waf/answers.rs"]
mod waf_answers;
#[path = "waf/corpus.rs"]
mod waf_corpus;
#[path = "waf/portal.rs"]
mod waf_portal;
