//! `make bench-balance`: PHP by a front's own PHP-FPM, by another front over the mesh, and the same two ways by nginx, which passes
//! requests on over plain HTTP and over TLS. nginx shares the third node's PHP, so it keeps one connection to it: each that is kept
//! occupies a child. Prints medians and ratios; asserts no figure.

use std::path::Path;
use std::process::Stdio;

use bitrix_node::cluster::{Snapshot, Standing};
use bitrix_node::net::tls::self_signed;

use crate::proxy_nodes::Nodes;
use crate::support::daemon::{Daemon, free_port};
use crate::support::front::eventually;
use crate::support::http;

const ROUNDS: usize = 5;
const SECONDS: u32 = 3;
const CONNECTIONS: u32 = 16;

/// What costs least: the way is what is measured.
const PAGE: &str = "<?php echo getenv('NODE');";

const NGINX: &str = "master_process off; daemon off; pid RUN/nginx.pid; error_log RUN/nginx.err;
events { worker_connections 1024; }
http {
  access_log RUN/nginx.log combined buffer=64k; keepalive_requests 1000000;
  client_body_temp_path RUN/b; proxy_temp_path RUN/p; fastcgi_temp_path RUN/f; uwsgi_temp_path RUN/u; scgi_temp_path RUN/s;
  upstream plain { server 127.0.0.1:PLAIN; keepalive 64; keepalive_requests 1000000; }
  upstream secure { server 127.0.0.1:SECURE; keepalive 64; keepalive_requests 1000000; }
  upstream php { server unix:SOCKET; keepalive 1; }
  server {
    listen 127.0.0.1:FRONT;
    location /plain/ { proxy_pass http://plain/; proxy_http_version 1.1; proxy_set_header Connection \"\"; }
    location /secure/ { proxy_pass https://secure/; proxy_http_version 1.1; proxy_set_header Connection \"\"; }
  }
  server {
    listen 127.0.0.1:PLAIN; listen 127.0.0.1:SECURE ssl; ssl_certificate RUN/crt; ssl_certificate_key RUN/key; root ROOT;
    location ~ \\.php$ { fastcgi_pass php; fastcgi_keep_conn on; fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
      fastcgi_param QUERY_STRING $query_string; fastcgi_param REQUEST_METHOD $request_method; fastcgi_param REQUEST_URI $request_uri; }
  }
}
";

/// Requests per second that a tool of its own gets.
fn measure(address: &str) -> f64 {
    #[allow(clippy::disallowed_methods)]
    let mut wrk = std::process::Command::new("wrk");
    wrk.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{SECONDS}s"), address]);
    let output = wrk.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("Non-2xx"), "{address}: {text}");
    let rate = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    rate.unwrap_or_else(|| panic!("{text}")).trim().parse().unwrap()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn nginx(run: &Path, root: &Path, socket: &Path) -> (Daemon, u16, u16) {
    let (chain, key) = self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(run.join("crt"), chain).unwrap();
    std::fs::write(run.join("key"), key).unwrap();
    let (front, plain, secure) = (free_port(), free_port(), free_port());
    let text = NGINX
        .replace("RUN", &run.display().to_string())
        .replace("ROOT", &root.display().to_string())
        .replace("SOCKET", &socket.display().to_string())
        .replace("FRONT", &front.to_string())
        .replace("PLAIN", &plain.to_string())
        .replace("SECURE", &secure.to_string());
    let file = run.join("nginx.conf");
    std::fs::write(&file, format!("user root;\n{text}")).unwrap();
    let arguments = ["-c".as_ref(), file.as_os_str(), "-e".as_ref(), "stderr".as_ref()];
    (
        Daemon::start(Path::new("/usr/sbin/nginx"), arguments, &run.join("nginx.out")),
        front,
        plain,
    )
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make bench-balance"]
async fn local_php_beside_the_mesh_and_nginx() {
    let nodes = Nodes::start().await;
    std::fs::write(nodes.root.path().join("hello.php"), PAGE).unwrap();
    // The second front's own PHP drains: its clients are served by the third one.
    nodes.tell(1, |snapshot: &mut Snapshot| {
        snapshot.nodes[1].standing = Standing::Draining;
        snapshot.nodes[0].standing = Standing::Draining;
    });
    let (local, mesh) = (nodes.nodes[0].http, nodes.nodes[1].http);
    eventually("the second is served by the third", || {
        http::get(mesh, "/hello.php").is_ok_and(|answer| answer.text() == "n3")
    })
    .await;
    nodes.tell(0, |snapshot: &mut Snapshot| snapshot.nodes.truncate(1));
    let run = tempfile::tempdir().unwrap();
    let socket = nodes.nodes[2].socket();
    let (_nginx, front, plain) = nginx(run.path(), nodes.root.path(), &socket);
    eventually("nginx answers", || {
        http::get(([127, 0, 0, 1], front).into(), "/secure/hello.php").is_ok_and(|answer| answer.status == 200)
    })
    .await;
    let ways = [
        ("own PHP", format!("http://{local}/hello.php")),
        ("mesh", format!("http://{mesh}/hello.php")),
        ("nginx, own PHP", format!("http://127.0.0.1:{plain}/hello.php")),
        ("nginx, plain", format!("http://127.0.0.1:{front}/plain/hello.php")),
        ("nginx, TLS", format!("http://127.0.0.1:{front}/secure/hello.php")),
    ];
    let mut rates = vec![Vec::new(); ways.len()];
    for round in 0..=ROUNDS {
        for ((_, address), rates) in ways.iter().zip(&mut rates) {
            let rate = measure(address);
            // The first round warms up.
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    let medians: Vec<f64> = rates.into_iter().map(median).collect();
    for ((name, _), rate) in ways.iter().zip(&medians) {
        println!("{name:16} {rate:8.0} req/s");
    }
    println!("mesh / own PHP {:.2}", medians[1] / medians[0]);
    println!(
        "nginx plain / its own PHP {:.2}, TLS {:.2}",
        medians[3] / medians[2],
        medians[4] / medians[2]
    );
    println!(
        "mesh / nginx plain {:.2}, TLS {:.2}",
        medians[1] / medians[3],
        medians[1] / medians[4]
    );
}
