//! What the fronts of three nodes keep is shown and purged from any of them, by the real executable.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::proxy_nodes::{Node, Nodes};
use crate::support::front::eventually;
use crate::support::http;

const KEPT: &str = "<?php header('Cache-Control: public, max-age=600'); header('Cache-Tag: news'); echo hrtime(true);";

/// The exit code, and what each node said of that, or its error.
fn cdn(node: &Node, arguments: &[&str], of: &str) -> (i32, Vec<(String, Value)>) {
    let ran = node.command(&[&["cdn"], arguments, &["--output", "json"]].concat());
    let answer: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}{}", ran.out, ran.err));
    let said = answer["nodes"].as_array().unwrap().iter().map(|node| {
        let said = node.get("error").or(node.pointer(of)).cloned();
        (node["node"].as_str().unwrap().to_string(), said.unwrap_or_default())
    });
    (ran.code, said.collect())
}

fn all(of: [(&str, Value); 3]) -> Vec<(String, Value)> {
    of.map(|(node, said)| (node.to_string(), said)).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_reaches_all_nodes_and_names_who_is_silent() {
    let nodes = Nodes::start().await;
    std::fs::write(nodes.root.path().join("kept.php"), KEPT).unwrap();
    let [n1, n2, n3] = &nodes.nodes[..] else {
        panic!("three")
    };
    let get = |node: &Node| http::get(node.http, "/kept.php").unwrap().text();
    let fill = || {
        let kept = [get(n1), get(n2), get(n3)];
        assert_eq!([get(n1), get(n2), get(n3)], kept);
        kept
    };
    eventually("they know each other", || cdn(n1, &["status"], "/is_on").1.len() == 3).await;
    let kept = fill();
    let one = |node| (node, 1.into());
    let shown = cdn(n1, &["status"], "/counts/addresses");
    assert_eq!(shown, (0, all([one("n1"), one("n2"), one("n3")])));
    let purged = cdn(n2, &["purge", "--tag", "news"], "/removed");
    assert_eq!(purged, (0, all([one("n2"), one("n1"), one("n3")])));
    let again = fill();
    assert!(kept.iter().zip(&again).all(|(before, now)| before != now));

    n3.signal(Signal::SIGSTOP);
    let purged = cdn(n1, &["purge", "--all"], "/removed");
    n3.signal(Signal::SIGCONT);
    let silent = ("n3", "no answer within 1s".into());
    assert_eq!(purged, (1, all([one("n1"), one("n2"), silent])));
    assert!(get(n1) != again[0] && get(n2) != again[1]);
}
