//! A page on its way, with its addresses changed. By the crate `lol_html`, which streams, and within bounds: where a tag is larger than
//! those, the rest of the page passes as it is.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use lol_html::html_content::{ContentType, Element, TextChunk};
use lol_html::send::{HtmlRewriter, Settings};
use lol_html::{AsciiCompatibleEncoding, MemorySettings, OutputSink, element, text};

use super::address::Change;
use super::style;
use crate::proxy::error::Error;
use crate::proxy::exchange::Body;

/// The largest tag that is understood, with what the parser itself needs.
const MEMORY: usize = 512 << 10;

/// Input between two looks at other work.
const STEP: usize = 32 << 10;

pub struct Led {
    body: Body,
    /// `None`: it ended, or gave up.
    rewriter: Option<HtmlRewriter<'static, Sink>>,
    out: Sink,
    input: Bytes,
    is_over: bool,
}

/// What the rewriter has done with.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl OutputSink for Sink {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        self.lock().extend_from_slice(chunk);
    }
}

impl Sink {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.lock()).into()
    }
}

impl Led {
    pub fn new(body: Body, change: Change) -> Self {
        let out = Sink::default();
        Led {
            body,
            rewriter: Some(rewriter(change, out.clone())),
            out,
            input: Bytes::new(),
            is_over: false,
        }
    }

    /// Takes a piece of the page in.
    fn write(&mut self, piece: &[u8]) {
        let Some(rewriter) = &mut self.rewriter else {
            return self.out.lock().extend_from_slice(piece);
        };
        // It has handed on what it held, and may not be asked again.
        if rewriter.write(piece).is_err() {
            self.rewriter = None;
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            if !self.input.is_empty() {
                let piece = self.input.split_to(self.input.len().min(STEP));
                self.write(&piece);
                let out = self.out.take();
                if !out.is_empty() {
                    return Poll::Ready(Some(Ok(out)));
                }
                continue;
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                // Trailers speak of the bytes as they were.
                Some(Ok(frame)) => self.input = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    self.is_over = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.is_over = true;
                    // What fails now has been handed on, too.
                    let _ = self.rewriter.take().map(|rewriter| rewriter.end());
                    let out = self.out.take();
                    return Poll::Ready((!out.is_empty()).then_some(Ok(out)));
                }
            }
        }
    }
}

impl HttpBody for Led {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let next = ready!(self.get_mut().poll_next(cx));
        Poll::Ready(next.map(|next| next.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

fn rewriter(change: Change, out: Sink) -> HtmlRewriter<'static, Sink> {
    let one = Arc::new(change);
    let (hrefs, sources, lists, posters) = (one.clone(), one.clone(), one.clone(), one.clone());
    let (styles, sheets) = (one.clone(), one);
    let memory = MemorySettings::new()
        .with_max_allowed_memory_usage(MEMORY)
        .with_graceful_bail_out_on_memory_limit_exceeded(true);
    let settings = Settings::new_send()
        .append_element_content_handler(element!("link[href]", move |tag: &mut Element<'_, '_, _>| {
            set(tag, "href", |written| hrefs.address(written))
        }))
        .append_element_content_handler(element!(
            "script[src], img[src], source[src], audio[src], video[src], input[src]",
            move |tag: &mut Element<'_, '_, _>| set(tag, "src", |written| sources.address(written))
        ))
        .append_element_content_handler(element!("img[srcset], source[srcset]", move |tag: &mut Element<
            '_,
            '_,
            _,
        >| set(
            tag,
            "srcset",
            |written| lists.addresses(written)
        )))
        .append_element_content_handler(element!("video[poster]", move |tag: &mut Element<'_, '_, _>| {
            set(tag, "poster", |written| posters.address(written))
        }))
        .append_element_content_handler(element!("[style]", move |tag: &mut Element<'_, '_, _>| {
            set(tag, "style", |written| {
                style::attribute(written, &|address| styles.address(address))
            })
        }))
        // What two pieces of the page share of it stays as it is: so nothing waits for the next one.
        .append_element_content_handler(text!("style", move |piece: &mut TextChunk<'_>| {
            let bare = |address: &str| Some(sheets.address(address)?.replace("&amp;", "&"));
            if let Some(led) = style::sheet(piece.as_str(), &bare) {
                piece.replace(&led, ContentType::Html);
            }
            Ok(())
        }))
        .with_memory_settings(memory)
        .with_encoding(bytes())
        .with_graceful_bail_out_on_content_handler_error(true)
        .with_strict(false);
    HtmlRewriter::new(settings, out)
}

/// Whatever the page's encoding is, its bytes are to stay: in this one each byte is a letter and becomes the same byte again, and ASCII is
/// ASCII.
fn bytes() -> AsciiCompatibleEncoding {
    AsciiCompatibleEncoding::new(encoding_rs::WINDOWS_1252).expect("ASCII is part of it")
}

fn set<H: lol_html::HandlerTypes>(
    tag: &mut Element<'_, '_, H>,
    name: &str,
    change: impl Fn(&str) -> Option<String>,
) -> lol_html::HandlerResult {
    if let Some(led) = tag.get_attribute(name).and_then(|written| change(&written)) {
        tag.set_attribute(name, &led)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::SystemTime;

    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use crate::proxy::cdn::Rules;
    use crate::proxy::error::Kind;

    fn of(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    /// The page in pieces of this size.
    async fn led(page: &[u8], size: usize) -> Vec<u8> {
        let pieces: Vec<Bytes> = page.chunks(size).map(Bytes::copy_from_slice).collect();
        let body = StreamBody::new(stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece))))).boxed_unsync();
        let rules = Arc::new(Rules::new(&of(&["/bitrix/", "/upload/"]), &of(&["css", "js", "png"])));
        let change = rules.change("cdn.example", None, SystemTime::UNIX_EPOCH);
        let body = Led::new(body, change);
        body.collect().await.expect("whole").to_bytes().to_vec()
    }

    #[tokio::test]
    async fn attributes_that_load_something_are_changed_and_nothing_else() {
        let page = "<!doctype html><head><LINK rel=stylesheet href='/bitrix/a.css'><script src=/bitrix/a.js></script>\
                    <script>var a = '<img src=\"/upload/a.png\">';</script><style>b{content:\"url(/upload/a.png)\"}</style>\
                    <!-- <img src=\"/upload/a.png\"> --></head><a href=\"/upload/a.png\">/upload/a.png</a>\
                    <img alt=\"\u{444}\" src=\"/upload/a.png\" srcset=\"/upload/a.png, /docs/b.png 2x\"><img src=/docs/c.png>\
                    <textarea><img src=\"/upload/a.png\"></textarea><video poster=\"/upload/p.png\"></video>";
        let wanted = page
            .replacen("href='/bitrix/a.css'", "href=\"//cdn.example/bitrix/a.css\"", 1)
            .replacen("src=/bitrix/a.js", "src=\"//cdn.example/bitrix/a.js\"", 1)
            .replacen(
                "src=\"/upload/a.png\" srcset=\"/upload/a.png,",
                "src=\"//cdn.example/upload/a.png\" srcset=\"//cdn.example/upload/a.png,",
                1,
            )
            .replacen("poster=\"/upload/p.png\"", "poster=\"//cdn.example/upload/p.png\"", 1);
        for size in [1, 3, 7, 64, 100_000] {
            let led = led(page.as_bytes(), size).await;
            assert_eq!(String::from_utf8_lossy(&led), wanted, "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn other_bytes_stay_as_they_are() {
        let page = b"<p title=\"\xff\xfe\">\xd4<img alt='\xd4' src=/upload/a.png><br";
        let wanted = b"<p title=\"\xff\xfe\">\xd4<img alt='\xd4' src=\"//cdn.example/upload/a.png\"><br";
        assert_eq!(led(page, 5).await, wanted);
        let every: Vec<u8> = (0x80..=0xff).collect();
        let page = [
            b"<i style=\"font:'".as_slice(),
            &every,
            b"';background:url(/upload/a.png)\"><style>/*",
            &every,
            b"*/b{background:url(/upload/a.png)}</style>",
        ];
        let wanted = [
            b"<i style=\"font:'".as_slice(),
            &every,
            b"';background:url(//cdn.example/upload/a.png)\"><style>/*",
            &every,
            b"*/b{background:url(//cdn.example/upload/a.png)}</style>",
        ];
        assert_eq!(led(&page.concat(), 1000).await, wanted.concat());
    }

    #[tokio::test]
    async fn css_within_a_page_is_changed() {
        let page = "<i style=\"background: url('/upload/a.png?a=1&amp;b=2')\"></i><b style='background:url(&quot;/upload/a.png&quot;)'></b>\
                    <style>b{background:url(/upload/a.png?a=1&b=2)}</style><style>b{background:url(/upload/a.png";
        let wanted = "<i style=\"background: url(&quot;//cdn.example/upload/a.png?a=1&amp;b=2&quot;)\"></i>\
                      <b style=\"background:url(&quot;//cdn.example/upload/a.png&quot;)\"></b>\
                      <style>b{background:url(//cdn.example/upload/a.png?a=1&b=2)}</style><style>b{background:url(/upload/a.png";
        let led = led(page.as_bytes(), 100_000).await;
        assert_eq!(String::from_utf8_lossy(&led), wanted);
    }

    #[tokio::test]
    async fn a_tag_beyond_the_bounds_lets_the_rest_pass() {
        let huge = format!("<img src=\"data:{}\">", "A".repeat(2 * MEMORY));
        let page = format!("<img src=/upload/a.png>{huge}<img src=/upload/a.png>end");
        let wanted = format!("<img src=\"//cdn.example/upload/a.png\">{huge}<img src=/upload/a.png>end");
        for size in [1000, STEP] {
            assert_eq!(
                led(page.as_bytes(), size).await,
                wanted.as_bytes(),
                "in pieces of {size}"
            );
        }
    }

    #[tokio::test]
    async fn a_page_that_breaks_off_breaks_off() {
        let pieces = [
            Ok(Frame::data(Bytes::from("<p>"))),
            Err(Error::new(Kind::Upstream, "gone")),
        ];
        let body = StreamBody::new(stream::iter(pieces)).boxed_unsync();
        let rules = Arc::new(Rules::new(&[], &[]));
        let body = Led::new(body, rules.change("cdn.example", None, SystemTime::UNIX_EPOCH));
        assert!(body.collect().await.is_err());
    }
}
