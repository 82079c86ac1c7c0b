//! The command line without a running node: help, configuration, completions, exit codes.

use std::fs;

use crate::support::command::bitrix_node;

#[test]
fn every_command_has_help() {
    let top = bitrix_node(&["help"], &[]);
    assert_eq!(top.code, 0);
    let verbs = top
        .out
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    let verbs: Vec<&str> = verbs.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.len() > 8 && !verbs.contains(&"module"), "{verbs:?}");
    for verb in verbs.into_iter().filter(|verb| *verb != "help") {
        let help = bitrix_node(&[verb, "--help"], &[]);
        assert!(help.code == 0 && help.out.contains("Usage: bitrix-node"), "{verb}");
    }
}

#[test]
fn wrong_command_line_is_exit_2() {
    assert_eq!(bitrix_node(&["statsu"], &[]).code, 2);
    assert!(
        bitrix_node(&["statsu"], &[]).err.contains("status"),
        "it proposes the right word"
    );
}

#[test]
fn version_is_the_crates() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(bitrix_node(&["version"], &[]).out, format!("bitrix-node {version}\n"));
    let json: serde_json::Value =
        serde_json::from_str(&bitrix_node(&["version", "--output", "json"], &[]).out).unwrap();
    assert_eq!(json["version"], version);
}

#[test]
fn config_check_names_every_mistake_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, "[proxy]\nworker = 2\nmax_headers = \"x\"\n").unwrap();
    let file = file.to_str().unwrap();
    let ran = bitrix_node(&["config", "check", "--config", file], &[]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.out
            .contains("line 2: proxy.worker: unknown key; did you mean proxy.workers?"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("line 3: proxy.max_headers:"), "{}", ran.out);
    let run = bitrix_node(&["run", "--config", file], &[]);
    assert!(run.code == 1 && run.err.contains("line 2: proxy.worker"), "{}", run.err);
}

#[test]
fn config_show_tells_where_a_value_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, "[proxy]\nworkers = 2\n").unwrap();
    let ran = bitrix_node(
        &["config", "show", "--config", file.to_str().unwrap()],
        &[("BITRIX_NODE_NODE__NAME", "n7")],
    );
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("workers = 2  # file, line 2\n"), "{}", ran.out);
    assert!(ran.out.contains("name = \"n7\"  # environment\n"), "{}", ran.out);
    let defaults = bitrix_node(&["config", "show", "--default"], &[]);
    assert!(defaults.out.starts_with("# bitrix-node configuration"));
}

#[test]
fn a_named_file_must_exist() {
    let ran = bitrix_node(&["config", "check", "--config", "/nonexistent/config.toml"], &[]);
    assert!(
        ran.code == 1 && ran.out.contains("cannot read /nonexistent/config.toml"),
        "{}{}",
        ran.out,
        ran.err
    );
}

#[test]
fn status_without_a_node_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, format!("[node]\nrun_dir = \"{}\"\n", folder.path().display())).unwrap();
    let ran = bitrix_node(&["status", "--config", file.to_str().unwrap()], &[]);
    assert!(ran.code == 2 && ran.out.starts_with("DOWN  "), "{}{}", ran.out, ran.err);
    let json = bitrix_node(&["status", "--output", "json", "--config", file.to_str().unwrap()], &[]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["verdict"], "down");
}

#[test]
fn completions_and_man_pages_come_from_the_tree() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = bitrix_node(&["completion", shell], &[]);
        assert!(ran.code == 0 && ran.out.contains("preflight"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(bitrix_node(&["man", folder.path().to_str().unwrap()], &[]).code, 0);
    let page = fs::read_to_string(folder.path().join("bitrix-node-status.1")).unwrap();
    assert!(page.contains("Verdict first"), "{page}");
}
