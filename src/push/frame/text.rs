//! Framed text: JSON between two markers, frames one after another without anything between.

use std::time::UNIX_EPOCH;

use crate::push::message::Message;

const BEGIN: &str = "#!NGINXNMS!#";
const END: &str = "#!NGINXNME!#";

/// One frame. Several are laid behind each other.
pub fn message(message: &Message) -> String {
    // `tag` and `time` belong to older servers, which replayed by them.
    format!(
        "{BEGIN}{{\"id\":{},\"mid\":\"{}\",\"channel\":\"-\",\"tag\":\"{:03}\",\"time\":\"{}\",\"text\":{}}}{END}",
        message.mid.sequence(),
        message.mid,
        message.created.subsec_millis(),
        httpdate::fmt_http_date(UNIX_EPOCH + message.created),
        message.body.as_str(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::message::sample;

    #[test]
    fn a_frame_looks_as_clients_expect() {
        assert_eq!(
            message(&sample(r#"{"module_id":"im"}"#)),
            "#!NGINXNMS!#{\"id\":42,\"mid\":\"17012345670000000000000042\",\"channel\":\"-\",\"tag\":\"089\",\
             \"time\":\"Wed, 29 Nov 2023 05:09:27 GMT\",\"text\":{\"module_id\":\"im\"}}#!NGINXNME!#"
        );
    }

    #[test]
    fn a_body_cannot_end_its_frame() {
        let frame = message(&sample(r##"{"a":"#!NGINXNME!##!NGINXNMS!#"}"##));
        assert_eq!(frame.matches(BEGIN).count() + frame.matches(END).count(), 2);
    }
}
