//! What a portal answers all day, in Russian, German and English: none of it may be held back, nor refused when it is asked for, and
//! what leaks must be. The answers lie in `answers/`; texts of `talk.txt` are shown wherever a portal shows what people write. Runs with
//! the Core Rule Set: `make test-waf`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bitrix_node::config;
use bitrix_node::proxy::firewall::{Extent, extent};
use bitrix_node::proxy::waf::{Answer, Engine, Plan, Report, Transaction};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::waf_portal::{BUDGET, plans, plans_where, raw, request};

const METHODS: [&str; 3] = ["GET", "POST", "PROPFIND"];

/// An answer as it is written in `answers/`, and what was asked for.
struct Case {
    what: String,
    method: &'static str,
    target: String,
    status: u16,
    fields: Vec<(String, String)>,
    /// The rules of which one holds it back: `4=` or `3=` before those of one rule set.
    held_by: Vec<String>,
    body: String,
}

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/waf/answers")
        .join(name);
    fs::read_to_string(path).unwrap()
}

/// Parts of a file: each with its first line, which says what it is.
fn parts(name: &str) -> Vec<(String, String)> {
    let text = text(name);
    let parts = text.split("### ").skip(1);
    parts
        .map(|part| part.split_once('\n').unwrap())
        .map(|(what, rest)| (what.to_string(), rest.trim_end_matches('\n').to_string()))
        .collect()
}

fn cases(name: &str) -> Vec<Case> {
    let frame = text("frame.html");
    let parts = parts(name).into_iter();
    parts
        .map(|(what, text)| {
            let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
            let mut lines = head.lines();
            let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
            let status = lines.next().unwrap().parse().unwrap();
            let mut fields: Vec<(String, String)> = lines
                .map(|line| line.split_once(": ").unwrap())
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect();
            let mut take = |wanted: &str| {
                let at = fields.iter().position(|(name, _)| name == wanted)?;
                Some(fields.remove(at).1)
            };
            let held_by = take("Held-by").unwrap_or_default();
            let body = match take("Frame") {
                Some(title) => frame.replace("{{title}}", &title).replace("{{content}}", body),
                None => body.to_string(),
            };
            Case {
                what,
                method: METHODS.iter().find(|known| **known == method).unwrap(),
                target: target.to_string(),
                status,
                fields,
                held_by: held_by.split(' ').map(String::from).collect(),
                body,
            }
        })
        .collect()
}

fn shown(what: &str, target: &str, kind: &str, body: String) -> Case {
    Case {
        what: what.to_string(),
        method: "GET",
        target: target.to_string(),
        status: 200,
        fields: vec![("Content-Type".to_string(), kind.to_string())],
        held_by: Vec::new(),
        body,
    }
}

/// As the portal writes what people wrote into HTML.
fn escaped(text: &str) -> String {
    let escapes = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;")];
    escapes
        .iter()
        .fold(text.to_string(), |text, (from, to)| text.replace(from, to))
}

/// Each text at each place.
fn talk() -> Vec<Case> {
    const HTML: &str = "text/html; charset=UTF-8";
    let frame = text("frame.html");
    let page = |title: &str, content: String| frame.replace("{{title}}", title).replace("{{content}}", &content);
    let mut cases = Vec::new();
    for (what, text) in parts("talk.txt") {
        let line = escaped(&text).replace('\n', "<br />\n");
        let json = serde_json::to_string(&text).unwrap();
        // JSON in a page, of the old helpers and of the new ones.
        let script = json.replace("</", "<\\/");
        let hidden = json.replace('<', "\\u003C").replace('>', "\\u003E");
        let mut add = |place: &str, target: &str, kind: &str, body: String| {
            cases.push(shown(&format!("{what}: {place}"), target, kind, body));
        };
        let post =
            format!("<div class=\"feed-post-text\"><a href=\"/company/personal/user/5/\">Анна</a>: {line}</div>");
        add("in the feed", "/stream/", HTML, page("Новости", post.repeat(2)));
        let code = format!("<h1>Заметка</h1><pre class=\"code\">{}</pre>", escaped(&text));
        add(
            "as code in the knowledge base",
            "/knowledge/dev/7/",
            HTML,
            page("База знаний", code),
        );
        let bold = format!("<div id=\"task-detail-description\"><b>Warning</b>: {line}</div>");
        add(
            "in a task",
            "/company/personal/user/1/tasks/task/view/7/",
            HTML,
            page("Задача", bold),
        );
        add(
            "a fragment",
            "/bitrix/components/bitrix/socialnetwork.log.ex/ajax.php",
            HTML,
            post,
        );
        let state = format!("<script>BX.Vue.start({{\"items\":[{{\"text\":{script}}}]}});</script>");
        add("in a page's state", "/online/", HTML, page("Чат", state));
        let state = format!("<script>BX.Vue.start({{\"items\":[{{\"text\":{hidden}}}]}});</script>");
        add(
            "in a page's hidden state",
            "/crm/deal/details/7/",
            HTML,
            page("Сделка", state),
        );
        let answer = format!(
            "{{\"status\":\"success\",\"data\":{{\"messages\":[{{\"id\":12,\"text\":{json}}}]}},\"errors\":[]}}"
        );
        add(
            "in JSON",
            "/bitrix/services/main/ajax.php?action=im.v2.Chat.load",
            "application/json",
            answer.clone(),
        );
        add(
            "in JSON that is announced as HTML",
            "/bitrix/components/bitrix/im.messenger/im.ajax.php",
            HTML,
            answer,
        );
        let mail = page(
            "Письмо",
            format!("<div class=\"mail-msg-view-body\"><p style=\"margin:0\">{line}</p></div>"),
        );
        add("in a letter", "/mail/message/77/", HTML, mail);
        let feed = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<rss version=\"2.0\"><channel><item><description>{}</description></item></channel></rss>",
            escaped(&line)
        );
        add("in RSS", "/blog/rss/", "text/xml; charset=UTF-8", feed);
        let found = format!("<h2>Результаты поиска</h2><a href=\"/stream/7/\">…<b>{line}</b>…</a>");
        add(
            "found",
            "/search/?q=%D0%BE%D1%88%D0%B8%D0%B1%D0%BA%D0%B0",
            HTML,
            page("Поиск", found),
        );
    }
    cases
}

fn bytes(case: &Case) -> Bytes {
    let is_old = case.fields.iter().any(|(_, value)| value.contains("windows-1251"));
    match is_old {
        false => Bytes::copy_from_slice(case.body.as_bytes()),
        true => case.body.chars().map(windows_1251).collect(),
    }
}

fn windows_1251(letter: char) -> u8 {
    match letter {
        '\0'..='\x7f' => letter as u8,
        'А'..='я' => (letter as u32 - 'А' as u32) as u8 + 0xc0,
        'Ё' => 0xa8,
        'ё' => 0xb8,
        '№' => 0xb9,
        '«' => 0xab,
        '»' => 0xbb,
        '—' => 0x97,
        other => panic!("{other} is not in windows-1251"),
    }
}

struct Judged {
    request: Report,
    answer: Report,
    extent: Extent,
}

/// What both come to. `is_all`: the body is looked at whatever its type.
fn judge(plan: &Arc<Plan>, types: &[String], most: usize, case: &Case, is_all: bool) -> Judged {
    let asked = request(&raw("", case.method, &case.target, "", b""));
    let mut transaction = Transaction::new(plan.clone(), &asked, Engine::Detect, BUDGET);
    transaction.headers();
    transaction.body(&Bytes::new(), false);
    let of_request = transaction.asked();
    let fields = case.fields.iter();
    let headers: HeaderMap = fields
        .clone()
        .map(|(name, value)| {
            (
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect();
    let status = StatusCode::from_u16(case.status).unwrap();
    let extent = extent(types, &Method::GET, status, &headers);
    let both = |(name, value): (&String, &String)| (name.clone().into(), value.clone().into());
    transaction.answer(&Answer {
        status: case.status,
        protocol: "HTTP/1.1",
        headers: fields.map(|(name, value)| both((name, value))).collect(),
    });
    let body = bytes(case);
    if extent == Extent::Body || is_all {
        transaction.answer_body(&body.slice(..body.len().min(most)));
    }
    Judged {
        request: of_request,
        answer: transaction.answered(),
        extent,
    }
}

fn said(report: &Report) -> String {
    let hits = report.hits.iter();
    let hits: Vec<String> = hits
        .map(|hit| format!("  {} {} {}", hit.id, hit.message, hit.data))
        .collect();
    hits.join("\n")
}

/// Of those cases, what each rule set holds back, and the line that says how many.
fn counted(plan: &Arc<Plan>, group: &str, cases: &[Case], is_all: bool) -> (Vec<String>, String) {
    let waf = config::read(config::DEFAULTS).unwrap().config.waf;
    let (mut bodies, mut held) = (0, Vec::new());
    for case in cases {
        let judged = judge(plan, &waf.answer_types, waf.max_answer.bytes(), case, is_all);
        bodies += usize::from(judged.extent == Extent::Body || is_all);
        let reports = [&judged.request, &judged.answer];
        if let Some(report) = reports.into_iter().find(|report| report.refused.is_some()) {
            held.push(format!("{group}: {} {}\n{}", case.what, case.target, said(report)));
        }
    }
    let types = if is_all { "every type" } else { "as configured" };
    let line = format!(
        "{group}, {types}: {} of {} held back, {bodies} bodies looked at",
        held.len(),
        cases.len()
    );
    (held, line)
}

#[test]
#[ignore = "needs the rule set: make test-waf"]
fn what_a_portal_answers_all_day_is_not_held_back() {
    let groups = [
        ("pages", cases("usual.txt")),
        ("the administrator's", cases("admin.txt")),
        ("talk of programs", talk()),
    ];
    let mut all = Vec::new();
    for knows_portal in [false, true] {
        for (name, plan) in plans_where(knows_portal) {
            for ((group, cases), is_all) in groups.iter().flat_map(|group| [(group, false), (group, true)]) {
                let (held, line) = counted(&plan, group, cases, is_all);
                let rules = if knows_portal { "" } else { " alone" };
                println!("{name}{rules}: {line}");
                if knows_portal {
                    all.extend(held.iter().map(|held| format!("{name}: {held}")));
                }
            }
        }
    }
    assert!(all.is_empty(), "{} held back:\n{}", all.len(), all.join("\n"));
}

#[test]
#[ignore = "needs the rule set: make test-waf"]
fn what_leaks_is_held_back() {
    let waf = config::read(config::DEFAULTS).unwrap().config.waf;
    let mut missed = Vec::new();
    for (name, plan) in plans() {
        let set = &name["CRS ".len()..][..1];
        for case in cases("leaks.txt") {
            let report = judge(&plan, &waf.answer_types, waf.max_answer.bytes(), &case, false).answer;
            let rules: Vec<String> = report.hits.iter().map(|hit| hit.id.to_string()).collect();
            println!("{name}: {}: {}", case.what, rules.join(" "));
            let wanted = case.held_by.iter().filter_map(|rule| match rule.split_once('=') {
                Some((own, rule)) => (own == set).then_some(rule),
                None => Some(rule.as_str()),
            });
            let wanted: Vec<&str> = wanted.collect();
            let is_held = report.refused.is_some() && rules.iter().any(|rule| wanted.contains(&rule.as_str()));
            if is_held == (wanted == ["none"]) {
                missed.push(format!("{name}: {}, by {wanted:?}:\n{}", case.what, said(&report)));
            }
        }
    }
    assert!(missed.is_empty(), "{} let out:\n{}", missed.len(), missed.join("\n"));
}
