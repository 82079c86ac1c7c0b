//! The front's TLS and HTTP/2 before suites that others made: testssl.sh, and h2spec where `H2SPEC` names it. For `make test-tls` and
//! `make test-h2`.

use std::fs;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::support::front::Front;

async fn run(program: &str, arguments: Vec<String>) -> Output {
    let program = program.to_string();
    let ran = tokio::task::spawn_blocking(move || {
        #[allow(clippy::disallowed_methods)]
        let mut command = std::process::Command::new(&program);
        let ran = command.args(arguments).stdin(Stdio::null()).output();
        ran.unwrap_or_else(|error| panic!("{program}: {error}"))
    });
    ran.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs testssl.sh and some minutes; make test-tls"]
async fn testssl_finds_no_weakness() {
    let front = Front::start("").await;
    let found = front.folder.path().join("found.json");
    let arguments = [
        "--quiet",
        "--warnings",
        "off",
        "--color",
        "0",
        "--ip",
        "one",
        "--jsonfile",
    ];
    let mut arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    arguments.push(found.display().to_string());
    arguments.extend(["-p", "-s", "-f", "-U"].map(String::from));
    arguments.push(front.https.to_string());
    let ran = run("testssl", arguments).await;
    let text = fs::read_to_string(&found).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    let findings: Vec<Value> = serde_json::from_str(&text).unwrap();
    let of = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_string();
    let said = |id: &str| {
        let found = findings.iter().find(|finding| of(finding, "id") == id);
        found.map_or_else(|| panic!("nothing of {id} in {text}"), |finding| of(finding, "finding"))
    };
    for old in ["SSLv2", "SSLv3", "TLS1", "TLS1_1"] {
        assert!(said(old).contains("not offered"), "{old}: {}", said(old));
    }
    for new in ["TLS1_2", "TLS1_3"] {
        assert!(said(new).starts_with("offered"), "{new}: {}", said(new));
    }
    let weak = findings.iter().filter(|finding| {
        // Client renegotiation, for one, has no severity where it is not there.
        matches!(
            of(finding, "severity").as_str(),
            "LOW" | "MEDIUM" | "HIGH" | "CRITICAL" | "FATAL"
        )
    });
    let weak: Vec<String> = weak
        .map(|finding| format!("{}: {}", of(finding, "id"), of(finding, "finding")))
        .collect();
    println!("{} findings; weak: {weak:#?}", findings.len());
    assert!(
        said("secure_client_renego").contains("not vulnerable"),
        "{}",
        said("secure_client_renego")
    );
    assert!(weak.is_empty(), "{weak:#?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs h2spec; make test-h2"]
async fn h2spec_passes() {
    #[allow(clippy::disallowed_methods)]
    let program = std::env::var("H2SPEC").expect("H2SPEC names the program h2spec (github.com/summerwind/h2spec)");
    let front = Front::start("").await;
    let port = front.https.port().to_string();
    for path in ["/a.txt", "/app/whole"] {
        let arguments = ["--tls", "--insecure", "--strict", "--port", &port, "--path", path];
        let ran = run(&program, arguments.map(String::from).into()).await;
        let text = String::from_utf8_lossy(&ran.stdout).into_owned();
        println!("{path}\n{text}");
        // A file is sent whatever the request's body is, and what is wrong with that may come too late (RFC 9113 §8.1).
        let mut actual = text.lines().filter(|line| line.trim_start().starts_with("Actual: "));
        let is_late = |line: &str| line.contains("DATA Frame") && line.contains("flags:0x01");
        let are_late = path == "/a.txt" && actual.clone().count() > 0 && actual.all(is_late);
        assert!(ran.status.success() || are_late, "{path}\n{text}");
    }
}
