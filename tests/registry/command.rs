//! The real node with the storage on: it enrols itself, and the commands show what is there.

use serde_json::Value;

use crate::support::daemon::free_port;
use crate::support::eventually::eventually;
use crate::support::node::Node;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_enrols_and_the_commands_show_it() {
    let storage = format!(
        "[storage]\nengine = \"replicated\"\nmount = \"none\"\nlisten = \"127.0.0.1:{}\"\n",
        free_port()
    );
    let mut node = Node::prepare(&storage);
    node.run();
    let show = |arguments: &[&str]| {
        let ran = node.command(&[&["registry", "show", "--output", "json"], arguments].concat());
        (
            ran.code,
            serde_json::from_str::<Value>(&ran.out).unwrap_or_default(),
            ran.err,
        )
    };
    let shown = eventually("the node is in the registry", async || match show(&[]) {
        (0, shown, _) if shown["nodes"][0]["name"] == "node1" => Ok(shown),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(shown["last_seen"], Value::from(false));
    assert_eq!(shown["nodes"][0]["state"], "member");
    eventually("the agent says so", async || match node.service("agent") {
        row if row["detail"]
            .as_str()
            .is_some_and(|detail| detail.starts_with("registry version ")) =>
        {
            Ok(())
        }
        row => Err(row.to_string()),
    })
    .await;
    // Later versions come by themselves: the node claims its seats.
    let first = show(&["--revision", "1"]).1;
    assert_eq!(
        (&first["revision"], &first["nodes"]),
        (&Value::from(1), &shown["nodes"])
    );
    let (code, _, error) = show(&["--revision", "999999"]);
    assert!(code == 1 && error.contains("is not kept"), "{error}");

    let history = node.command(&["registry", "history"]).out;
    let is_first = |line: &str| line.starts_with("1 ") && line.contains("  node1  ") && line.ends_with("node node1");
    assert!(history.lines().any(is_first), "{history}");
    let file = node.config.node.data_dir.join("exported.db");
    let exported = node.command(&["registry", "export", file.to_str().unwrap()]);
    assert!(exported.out.starts_with("version "), "{}{}", exported.out, exported.err);
    // What the agent keeps for the time without the registry is such an image, too.
    for image in [file, node.config.view().join("last.db")] {
        assert!(std::fs::read(image).unwrap().starts_with(b"SQLite format 3\0"));
    }

    // A node without its storage still shows what it saw last, and says so.
    node.signal_supervisor(nix::sys::signal::Signal::SIGTERM);
    node.wait_for_end();
    let ran = node.command(&["registry", "show"]);
    let line = ran.out.lines().next().unwrap_or_default();
    assert!(
        line.starts_with("VERSION ") && line.contains("  (last seen)"),
        "{}{}",
        ran.out,
        ran.err
    );
    assert!(
        ran.code == 1 && ran.err.contains("what this node saw last"),
        "{}",
        ran.err
    );
}
