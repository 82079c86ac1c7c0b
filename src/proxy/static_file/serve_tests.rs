//! `Files` over real folders.

use std::fs;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Response, StatusCode};

use super::files::*;
use crate::base::{Scope, clock};
use crate::config::Coding;
use crate::proxy::compress::Compression;
use crate::proxy::error::{Error, Kind};
use crate::proxy::exchange::Body;
use crate::proxy::fixture::{exchange, read, sendable};

struct World {
    folder: tempfile::TempDir,
    files: Files,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().expect("temp dir");
        let manner = Manner {
            follow_symlinks: false,
            memory: 64 << 20,
            compression: Compression {
                codings: vec![Coding::Zstd, Coding::Gzip],
                min_size: 1000,
            },
        };
        let files = Files::open(folder.path(), manner, Scope::new()).expect("opened");
        World { folder, files }
    }

    /// Writes a file that was last changed an hour ago.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        self.write_aged(name, content, Duration::from_secs(3600));
    }

    fn write_aged(&self, name: &str, content: impl AsRef<[u8]>, age: Duration) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, content).expect("written");
        let file = fs::File::options().write(true).open(&path).expect("opened");
        let now = clock::wall();
        file.set_modified(now - age).expect("set");
    }

    async fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Result<Response<Body>, Error> {
        let exchange = exchange(method, path, fields);
        match sendable(self.files.look(&exchange.path)).await? {
            Found::File(entry) => sendable(self.files.serve(&exchange, entry)).await,
            Found::Folder => Err(Error::new(Kind::Internal, "a folder")),
            Found::Missing => Err(Error::new(Kind::NotFound, "missing")),
        }
    }

    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> (StatusCode, http::HeaderMap, Bytes) {
        let response = self.ask("GET", path, fields).await.expect("answered");
        let (parts, body) = response.into_parts();
        let body = read(body).await.expect("whole");
        (parts.status, parts.headers, body)
    }

    async fn refused(&self, method: &str, path: &str) -> Kind {
        self.ask(method, path, &[]).await.expect_err("refused").kind
    }

    /// As if the second passed in which entries are not compared with the disk.
    fn age(&mut self) {
        self.files.opened -= Duration::from_secs(2);
    }
}

fn field<'a>(headers: &'a http::HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().expect("text"))
}

#[tokio::test]
async fn file_is_served_from_disk_and_from_memory_alike() {
    let world = World::new();
    world.write("a/style.css", "body {}");
    for _ in 0..3 {
        let (status, headers, body) = world.get("/a/style.css", &[]).await;
        assert_eq!((status, &body[..]), (StatusCode::OK, &b"body {}"[..]));
        assert_eq!(field(&headers, "content-type"), "text/css; charset=utf-8");
        assert_eq!(field(&headers, "content-length"), "7");
        assert_eq!(field(&headers, "cache-control"), "max-age=2592000");
        assert_eq!(field(&headers, "x-content-type-options"), "nosniff");
        assert_eq!(field(&headers, "accept-ranges"), "bytes");
        assert!(field(&headers, "etag").starts_with('"'));
        assert_eq!(field(&headers, "vary"), "");
    }
    fs::remove_file(world.folder.path().join("a/style.css")).expect("removed");
    assert_eq!(
        world.get("/a/style.css", &[]).await.0,
        StatusCode::OK,
        "within a second memory answers"
    );
}

#[tokio::test]
async fn change_on_disk_shows_after_a_second() {
    let mut world = World::new();
    world.write("page.txt", "old");
    let (_, old, _) = world.get("/page.txt", &[]).await;
    world.write("page.txt", "new");
    world.age();
    let (_, new, body) = world.get("/page.txt", &[]).await;
    assert_eq!(body, "new");
    assert_ne!(old["etag"], new["etag"]);
    fs::remove_file(world.folder.path().join("page.txt")).expect("removed");
    world.age();
    assert_eq!(world.refused("GET", "/page.txt").await, Kind::NotFound);
    world.write("page.txt", "again");
    assert_eq!(
        world.get("/page.txt", &[]).await.2,
        "again",
        "absence is not remembered"
    );
}

#[tokio::test]
async fn unchanged_file_keeps_its_memory_over_a_comparison() {
    let mut world = World::new();
    world.write("page.txt", "text");
    let (_, _, first) = world.get("/page.txt", &[]).await;
    let (_, _, second) = world.get("/page.txt", &[]).await;
    world.age();
    let (_, _, third) = world.get("/page.txt", &[]).await;
    assert_eq!(first.as_ptr(), second.as_ptr());
    assert_eq!(first.as_ptr(), third.as_ptr());
}

#[tokio::test]
async fn young_file_is_neither_kept_nor_strong() {
    let world = World::new();
    world.write_aged("page.txt", "one", Duration::ZERO);
    let (_, headers, _) = world.get("/page.txt", &[]).await;
    assert!(field(&headers, "etag").starts_with("W/"));
    world.write_aged("page.txt", "two", Duration::ZERO);
    assert_eq!(world.get("/page.txt", &[]).await.2, "two");
}

#[tokio::test]
async fn what_is_no_file_is_told_apart() {
    let world = World::new();
    world.write("folder/index.txt", "");
    world.write("index.php", "<?php");
    world.write("upload/index.php", "<?php");
    std::os::unix::fs::symlink("/etc/passwd", world.folder.path().join("link.txt")).expect("linked");
    nix::unistd::mkfifo(&world.folder.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    for path in ["/folder", "/folder/", "/"] {
        let exchange = exchange("GET", path, &[]);
        assert!(
            matches!(world.files.look(&exchange.path).await, Ok(Found::Folder)),
            "{path}"
        );
    }
    let long = format!("/{}", "n".repeat(300));
    for path in [
        "/none",
        "/folder/none",
        "/folder/index.txt/",
        "/folder/index.txt/below",
        &long,
    ] {
        assert_eq!(world.refused("GET", path).await, Kind::NotFound, "{path}");
    }
    for path in ["/link.txt", "/fifo", "/index.php"] {
        assert_eq!(world.refused("GET", path).await, Kind::Forbidden, "{path}");
    }
    assert_eq!(world.refused("POST", "/folder/index.txt").await, Kind::Method);
}

#[tokio::test]
async fn uploads_cannot_run() {
    let world = World::new();
    for name in ["x.svg", "x.html", "x.php", "x.png"] {
        world.write(&format!("upload/{name}"), "content");
    }
    let (_, svg, _) = world.get("/upload/x.svg", &[]).await;
    assert_eq!(
        field(&svg, "content-security-policy"),
        "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    );
    assert_eq!(field(&svg, "content-disposition"), "");
    for path in ["/upload/x.html", "/upload/x.php"] {
        let (_, headers, _) = world.get(path, &[]).await;
        assert_eq!(field(&headers, "content-disposition"), "attachment", "{path}");
        assert_eq!(field(&headers, "content-type"), "text/plain", "{path}");
    }
    let (_, png, _) = world.get("/upload/x.png", &[]).await;
    assert_eq!(
        (field(&png, "content-disposition"), field(&png, "cache-control")),
        ("", "max-age=2592000")
    );
}

#[tokio::test]
async fn conditions_save_the_body() {
    let world = World::new();
    world.write("page.html", "text");
    let (_, headers, _) = world.get("/page.html", &[]).await;
    let etag = field(&headers, "etag");
    let (status, again, body) = world.get("/page.html", &[("if-none-match", etag)]).await;
    assert_eq!((status, &body[..]), (StatusCode::NOT_MODIFIED, &b""[..]));
    assert_eq!((field(&again, "etag"), field(&again, "content-type")), (etag, ""));
    let date = field(&headers, "last-modified");
    assert_eq!(
        world.get("/page.html", &[("if-modified-since", date)]).await.0,
        StatusCode::NOT_MODIFIED
    );
    assert_eq!(
        world.get("/page.html", &[("if-match", "\"x\"")]).await.0,
        StatusCode::PRECONDITION_FAILED
    );
    let head = world.ask("HEAD", "/page.html", &[]).await.expect("answered");
    assert_eq!(field(head.headers(), "content-length"), "4");
    assert_eq!(read(head.into_body()).await.expect("nothing"), "");
}

#[tokio::test]
async fn ranges_of_small_and_large_files() {
    let world = World::new();
    let large: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    world.write("large.bin", &large);
    world.write("small.bin", &large[..100_000]);
    for (path, content) in [("/large.bin", &large[..]), ("/small.bin", &large[..100_000])] {
        assert_eq!(world.get(path, &[]).await.2, content);
        let size = content.len();
        let (status, headers, body) = world.get(path, &[("range", "bytes=70000-80000")]).await;
        assert_eq!(
            (status, &body[..]),
            (StatusCode::PARTIAL_CONTENT, &content[70000..=80000])
        );
        assert_eq!(field(&headers, "content-range"), format!("bytes 70000-80000/{size}"));
        assert_eq!(field(&headers, "content-length"), "10001");
        let (status, headers, body) = world.get(path, &[("range", "bytes=0-1,-2")]).await;
        assert_eq!(status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(field(&headers, "content-length"), body.len().to_string());
        assert_eq!(
            field(&headers, "content-type"),
            "multipart/byteranges; boundary=part-0123456789abcdef"
        );
        let part = |range: &str, bytes: &[u8]| {
            let head = format!(
                "\r\n--part-0123456789abcdef\r\ncontent-type: application/octet-stream\r\ncontent-range: bytes {range}/{size}\r\n\r\n"
            );
            [head.as_bytes(), bytes].concat()
        };
        let last = format!("{}-{}", size - 2, size - 1);
        let end = b"\r\n--part-0123456789abcdef--\r\n".to_vec();
        assert_eq!(
            body,
            [part("0-1", &content[..2]), part(&last, &content[size - 2..]), end].concat()
        );
        let beyond = world
            .ask("GET", path, &[("range", "bytes=9000000-")])
            .await
            .expect_err("refused");
        assert_eq!(beyond.kind, Kind::Range(size as u64));
        assert_eq!(
            world
                .get(path, &[("range", "bytes=0-1"), ("if-range", "\"x\"")])
                .await
                .2
                .len(),
            size
        );
    }
}

#[tokio::test]
async fn precompressed_copy_is_sent_to_those_who_take_it() {
    let mut world = World::new();
    world.write("app.js", "plain");
    world.write_aged("app.js.br", "brotli", Duration::from_secs(60));
    world.write_aged("app.js.gz", "older", Duration::from_secs(7200));
    let brotli = [("accept-encoding", "gzip, br")];
    for _ in 0..2 {
        let (_, headers, body) = world.get("/app.js", &brotli).await;
        assert_eq!((field(&headers, "content-encoding"), &body[..]), ("br", &b"brotli"[..]));
        assert_eq!(field(&headers, "content-type"), "text/javascript; charset=utf-8");
        let (_, plain, body) = world.get("/app.js", &[("accept-encoding", "gzip")]).await;
        assert_eq!(
            (field(&plain, "content-encoding"), &body[..]),
            ("", &b"plain"[..]),
            "the .gz is outdated"
        );
        assert_eq!(
            (field(&headers, "vary"), field(&plain, "vary")),
            ("accept-encoding", "accept-encoding")
        );
        assert_ne!(headers["etag"], plain["etag"]);
    }
    world.write_aged("app.js", "newer", Duration::from_secs(10));
    world.age();
    assert_eq!(world.get("/app.js", &brotli).await.2, "newer");
}

#[tokio::test]
async fn text_is_compressed_once_for_all() {
    let mut world = World::new();
    let text = "body { color: red } ".repeat(20_000);
    world.write("style.css", &text);
    let zstd = [("accept-encoding", "gzip, zstd")];
    // Read at the first request; from then on in memory.
    assert_eq!(world.get("/style.css", &zstd).await.2.len(), text.len());
    let (_, headers, first) = world.get("/style.css", &zstd).await;
    assert_eq!(field(&headers, "content-encoding"), "zstd");
    assert_eq!(zstd::decode_all(&first[..]).expect("zstd"), text.as_bytes());
    assert_eq!(field(&headers, "content-length"), first.len().to_string());
    assert_eq!(
        (field(&headers, "vary"), field(&headers, "accept-ranges")),
        ("accept-encoding", "")
    );
    assert!(field(&headers, "etag").starts_with("W/"), "{headers:?}");
    let (_, _, second) = world.get("/style.css", &zstd).await;
    assert_eq!(first.as_ptr(), second.as_ptr());
    world.age();
    let (_, _, third) = world.get("/style.css", &zstd).await;
    assert_eq!(
        first.as_ptr(),
        third.as_ptr(),
        "an unchanged file is not compressed again"
    );
    let tag = [("accept-encoding", "zstd"), ("if-none-match", field(&headers, "etag"))];
    assert_eq!(world.get("/style.css", &tag).await.0, StatusCode::NOT_MODIFIED);
    let (_, gzip, _) = world.get("/style.css", &[("accept-encoding", "gzip")]).await;
    assert_eq!(field(&gzip, "content-encoding"), "gzip");
    let (status, part, bytes) = world
        .get("/style.css", &[("accept-encoding", "zstd"), ("range", "bytes=0-3")])
        .await;
    assert_eq!(
        (status, &bytes[..], field(&part, "content-encoding")),
        (StatusCode::PARTIAL_CONTENT, &b"body"[..], "")
    );
    let head = world.ask("HEAD", "/style.css", &zstd).await.expect("answered");
    assert_eq!(field(head.headers(), "content-length"), first.len().to_string());
    world.write("style.css", text.to_uppercase());
    world.age();
    for _ in 0..2 {
        let (_, _, changed) = world.get("/style.css", &zstd).await;
        let changed = zstd::decode_all(&changed[..]).unwrap_or(changed.to_vec());
        assert!(changed.starts_with(b"BODY"), "an old form is served");
    }
}

#[tokio::test]
async fn what_is_not_text_or_short_is_sent_as_it_is() {
    let world = World::new();
    world.write("a.css", "short");
    world.write("a.png", "x".repeat(5000));
    for path in ["/a.css", "/a.png"] {
        for _ in 0..3 {
            let (_, headers, _) = world.get(path, &[("accept-encoding", "zstd")]).await;
            assert_eq!(field(&headers, "content-encoding"), "", "{path}");
        }
    }
}

#[tokio::test]
async fn a_file_that_goes_is_not_there_and_its_copy_does_not_matter() {
    let world = World::new();
    world.write("app.js", "x".repeat(5_000_000));
    world.write_aged("app.js.br", "y".repeat(5_000_000), Duration::from_secs(60));
    let brotli = [("accept-encoding", "br")];
    assert_eq!(world.get("/app.js", &brotli).await.2[0], b'y');
    fs::remove_file(world.folder.path().join("app.js.br")).expect("removed");
    assert_eq!(world.get("/app.js", &brotli).await.2[0], b'x', "the copy is gone");
    world.get("/app.js", &brotli).await;
    fs::remove_file(world.folder.path().join("app.js")).expect("removed");
    // Within the second in which it is believed to be there.
    assert_eq!(world.refused("GET", "/app.js").await, Kind::NotFound);
}

#[tokio::test]
async fn a_large_file_stays_open_while_it_is_the_same() {
    let world = World::new();
    world.write("a.bin", "a".repeat(500_000));
    for _ in 0..2 {
        assert_eq!(world.get("/a.bin", &[]).await.2[0], b'a');
    }
    assert_eq!(world.files.open_handles(), 1);
    // Another file under its name, and one that was changed in place.
    world.write("b.bin", "b".repeat(500_000));
    fs::rename(world.folder.path().join("b.bin"), world.folder.path().join("a.bin")).expect("renamed");
    assert_eq!(world.get("/a.bin", &[]).await.2[0], b'b');
    world.write_aged("a.bin", "c".repeat(400_000), Duration::from_secs(100));
    let (_, headers, body) = world.get("/a.bin", &[]).await;
    assert_eq!((body[0], body.len()), (b'c', 400_000));
    assert_eq!(field(&headers, "content-length"), "400000");
    assert_eq!(world.files.open_handles(), 1);
}

#[test]
fn dates_before_the_epoch_do_no_harm() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("runtime");
    let world = World::new();
    world.write("old.txt", "old");
    let file = fs::File::options()
        .write(true)
        .open(world.folder.path().join("old.txt"))
        .expect("opened");
    file.set_modified(SystemTime::UNIX_EPOCH - Duration::from_secs(1))
        .expect("set");
    let (status, headers, _) = runtime.block_on(world.get("/old.txt", &[]));
    assert_eq!(
        (status, field(&headers, "last-modified")),
        (StatusCode::OK, "Thu, 01 Jan 1970 00:00:00 GMT")
    );
}
