//! Bodies by example, and broken ones.

use proptest::prelude::*;

use super::*;

fn read(content_type: &str, body: &[u8]) -> (Result<(), Fault>, Store) {
    let mut store = Store::default();
    let kind = processor(content_type.as_bytes()).unwrap();
    let body = Bytes::copy_from_slice(body);
    let result = super::read(kind, content_type.as_bytes(), &body, false, &mut store);
    (result, store)
}

fn pairs(store: &Store, variable: Variable) -> Vec<String> {
    let values = store.of(variable).iter().map(|number| store.get(*number));
    let pair = |value: &super::super::store::Value| {
        format!(
            "{}={}",
            String::from_utf8_lossy(&value.key),
            String::from_utf8_lossy(&value.text)
        )
    };
    values.map(pair).collect()
}

#[test]
fn forms_are_decoded() {
    let (result, store) = read(
        "application/x-www-form-urlencoded; charset=utf-8",
        b"a=1+2&b%5b%5d=%d1%8f&&c",
    );
    assert_eq!(result, Ok(()));
    assert_eq!(pairs(&store, Variable::ArgsPost), ["a=1 2", "b[]=я", "c="]);
    assert_eq!(pairs(&store, Variable::ArgsPostNames), ["a=a", "b[]=b[]", "c=c"]);
}

#[test]
fn names_are_what_php_makes_of_them() {
    for (name, key) in [
        ("filter[NAME]", "filter[NAME]"),
        ("filter[NAME]text", "filter[NAME]"),
        ("filter[NAME].text", "filter[NAME]"),
        ("filter[NAME][text", "filter[NAME]"),
        ("filter[NAME]_text[]", "filter[NAME]"),
        ("filter[NAME][text]", "filter[NAME][text]"),
        ("filter[]text", "filter[]"),
        ("a[b[text]", "a[b[text]"),
        ("a[text", "a[text"),
        ("a]text", "a]text"),
        ("sql\0text", "sql"),
        ("a[b\0]text", "a[b"),
        ("  action", "action"),
        (" \0text", ""),
        ("", ""),
    ] {
        let found = form::key(&Bytes::copy_from_slice(name.as_bytes()));
        assert_eq!(found, key, "{name:?}");
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let (_, store) = read("application/x-www-form-urlencoded", format!("{encoded}=1").as_bytes());
        assert_eq!(pairs(&store, Variable::ArgsPost), [format!("{key}=1")]);
        assert_eq!(pairs(&store, Variable::ArgsPostNames), [format!("{key}={name}")]);
    }
}

#[test]
fn json_is_named_by_its_way() {
    let (result, store) = read("application/json", br#"{"a":[1,{"b":"\u0434"},null],"a":true}"#);
    assert_eq!(result, Ok(()));
    let expected = ["json.a=1", "json.a.b=д", "json.a=", "json.a=true"];
    assert_eq!(pairs(&store, Variable::ArgsPost), expected);
    assert!(read("application/json", b"{\"a\":").0.is_err());
    assert!(read("application/json", &[b'['; 5000]).0.is_err());
}

#[test]
fn xml_has_text_and_attributes() {
    let (result, store) = read("text/xml", b"<a x='1&lt;'>b<c>&amp;d</c><![CDATA[e]]></a>");
    assert_eq!(result, Ok(()));
    assert_eq!(pairs(&store, Variable::Xml), ["//@*=1<", "/*=b&de"]);
    assert!(read("text/xml", b"<a>").0.is_err());
    assert!(read("text/xml", b"no").0.is_err());
}

const FORM: &str = "multipart/form-data; boundary=\"xx\"";

#[test]
fn parts_are_fields_and_files() {
    let body = b"--xx\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n2\r\n--xx\r\n\
        Content-Disposition: form-data; name=\"f\"; filename=\"x\\\"y.php\"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--xx--\r\n";
    let (result, store) = read(FORM, body);
    assert_eq!(result, Ok(()));
    assert_eq!(pairs(&store, Variable::ArgsPost), ["a=1\r\n2"]);
    assert_eq!(pairs(&store, Variable::Files), ["f=x\"y.php"]);
    assert_eq!(pairs(&store, Variable::FilesSizes), ["f=5"]);
    assert_eq!(store.of(Variable::MultipartPartHeaders).len(), 3);
    assert_eq!(pairs(&store, Variable::MultipartStrictError), ["=0"]);
}

#[test]
fn what_is_not_as_it_should_be_is_told_and_still_read() {
    let broken = [
        "--xx\nContent-Disposition: form-data; name=a\n\nv",
        "lead\n--xx\nContent-Disposition: form-data; name=a\n\nv\n--xx--",
        "--xx\nContent-Disposition: form-data; name=a\n\nv\n--xx--\ntail",
        "--xx\nContent-Disposition: form-data;\n name=a\n\nv\n--xx--",
    ];
    for body in broken {
        let (result, store) = read(FORM, body.as_bytes());
        assert!(result.is_err(), "{body}");
        assert_eq!(pairs(&store, Variable::ArgsPost), ["a=v"], "{body}");
        assert_eq!(pairs(&store, Variable::MultipartStrictError), ["=1"], "{body}");
    }
    assert!(read("multipart/form-data", b"--xx").0.is_err());
    assert!(read("multipart/form-data; boundary=a; boundary=b", b"--a--").0.is_err());
}

/// Where PHP finds the field `q`, rules find it, or the body is no such body.
#[test]
fn what_is_a_field_for_php_is_not_hidden_in_a_file() {
    let disposition =
        |parameters: &str| format!("--a\r\nContent-Disposition: form-data; {parameters}\r\n\r\nattack\r\n--a--\r\n");
    let inside = |outer: &str| {
        format!(
            "--{outer}\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\n--a\r\n\
             Content-Disposition: form-data; name=\"q\"\r\n\r\nattack\r\n--a--\r\n\r\n--{outer}--\r\n"
        )
    };
    let pad = "x".repeat(6000);
    let sure = [
        ("a", disposition("name=\"q\"; filename*=\"x.txt\"")),
        ("a", disposition("name=\"q\"; x'; filename=\"x.txt\"; y='")),
        ("\"a\"; charset=utf-8", disposition("name=q")),
    ];
    let unsure = [
        ("a,b", inside("a,b")),
        ("b; x=boundary=a", inside("b")),
        ("a ", inside("a ")),
        ("a", disposition("name=\"q\"; filename =\"x.txt\"")),
        ("a", disposition("name=\"q\"; name =\"message\"")),
        ("a", disposition("name=\"message\"; name=\"q\"")),
        ("a", disposition("name=\"q\"; x=\0; filename=\"x.txt\"")),
        ("a", disposition(&format!("name=\"q\"; x=\"{pad}\"; filename=\"x:y\""))),
        (
            "a",
            disposition("name=\"q\"\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\""),
        ),
        ("a", disposition("name=\"q\"\r\n\0: 1\r\nx: 1")),
        (
            "a",
            "--a\r\nContent-Disposition: form-data; name=\"q\"\r\n\r\n--a\r\n\
             Content-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nattack\r\n--a--\r\n"
                .to_string(),
        ),
        (
            "a",
            "--a\r\nContent-Disposition: name=\"q\"; x=1\r\n\r\nattack\r\n--a--\r\n".to_string(),
        ),
    ];
    for (is_sure, cases) in [(true, &sure[..]), (false, &unsure[..])] {
        for (boundary, body) in cases {
            let (result, store) = read(&format!("multipart/form-data; boundary={boundary}"), body.as_bytes());
            assert_eq!(result.is_ok(), is_sure, "{boundary}: {body}");
            let found = pairs(&store, Variable::ArgsPost);
            assert!(!is_sure || found == ["q=attack"], "{boundary}: {body}: {found:?}");
        }
    }
    for kind in [
        "multipart/form-data; start=boundary=a; boundary=b",
        "multipart/form-data; boundary =a",
        "multipart/form-data; Boundary=b; boundary=a",
        "multipart/form-data, boundary=a",
        "multipart/form-data x; boundary=a",
    ] {
        assert!(read(kind, inside("b").as_bytes()).0.is_err(), "{kind}");
    }
}

#[test]
fn parts_as_programs_send_them_are_as_they_should_be() {
    let net = "\r\n--b\r\nContent-Type: application/pdf\r\n\
        Content-Disposition: form-data; name=file; filename=x.pdf; filename*=utf-8''x.pdf\r\n\r\nattack\r\n--b--\r\n";
    let empty = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n--b--";
    for (kind, body, arguments) in [
        ("multipart/form-data; boundary=\"b\"", net, &[][..]),
        ("multipart/form-data;charset=utf-8;boundary=b", empty, &["a="]),
    ] {
        let (result, store) = read(kind, body.as_bytes());
        assert_eq!(result, Ok(()), "{body}");
        assert_eq!(pairs(&store, Variable::ArgsPost), arguments, "{body}");
    }
    // Cut in a head.
    let mut store = Store::default();
    let body =
        Bytes::from_static(b"--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b\r\nContent-Dispo");
    let kind = b"multipart/form-data; boundary=b";
    assert_eq!(super::read(Processor::Multipart, kind, &body, true, &mut store), Ok(()));
    assert_eq!(pairs(&store, Variable::MultipartStrictError), ["=0"]);
}

proptest! {
    #[test]
    fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200), text in "[-x\r\n:;=\"a{}<>&\\[\\],]{0,80}") {
        for kind in [FORM, "application/json", "text/xml", "application/x-www-form-urlencoded"] {
            let _ = read(kind, &body);
            let _ = read(kind, text.as_bytes());
            let framed = format!("--xx\nContent-Disposition: form-data; name={text}\n\n{text}\n--xx{text}");
            let _ = read(kind, framed.as_bytes());
        }
    }
}
