//! The items of the server: for nodes that shall have copies, and as `stats cachedump` shows them.

use futures_util::future::join_all;
use tracing::debug;

use super::{Backend, Lost, Name, walk};
use crate::cache::ascii::is_key;
use crate::cache::command::Reply;
use crate::cache::store::{Copy, State};

/// Longest answer of one `cachedump`, as in memcached; further keys are left out.
const DUMP_MAX: usize = 2 << 20;
/// Items that are asked for at once.
const AT_ONCE: usize = 64;
/// All items are shown in this class; the server's own classes say nothing here.
pub const CLASS: u64 = 1;

impl Backend {
    /// Names of items whose keys please, dropped ones among them; and of those that do not tell their keys. What is stored meanwhile may
    /// be missing. A walk that fails says nothing of the server.
    pub async fn names(&self, pleases: impl Fn(&[u8]) -> bool + Send + Sync) -> Result<Vec<Name>, Lost> {
        let tag = self.server.way()?.tag;
        let pleases = |name: &Name| name.key().is_none_or(&pleases);
        walk::names(self.address(), tag, &pleases).await.map_err(|error| {
            debug!(server = %self.address(), %error, "a walk over memcached");
            Lost
        })
    }

    /// `ITEM <key> [<bytes> b; <end of life as unix time> s]` for each item. 0 is no limit.
    pub async fn dump(&self, class: u64, limit: u64) -> Reply {
        if class != CLASS {
            return Reply::Dump(Vec::new());
        }
        let Ok(names) = self.names(is_key).await else {
            return Reply::Unavailable;
        };
        let (mut lines, mut shown) = (Vec::new(), 0);
        for some in names.chunks(AT_ONCE) {
            let looked = join_all(some.iter().map(|name| self.look(name))).await;
            for state in looked.into_iter().flatten().flatten() {
                let State::Present(copy) = state else { continue };
                if !is_key(copy.record.key()) {
                    continue;
                }
                self.line(&copy, &mut lines);
                shown += 1;
                if shown == limit || lines.len() >= DUMP_MAX {
                    return Reply::Dump(lines);
                }
            }
        }
        Reply::Dump(lines)
    }

    fn line(&self, copy: &Copy, lines: &mut Vec<u8>) {
        let unix = self.clock.moment().unix;
        let end = copy.left.map_or(0, |left| unix.saturating_add(left) / 1000);
        lines.extend_from_slice(b"ITEM ");
        lines.extend_from_slice(copy.record.key());
        lines.extend_from_slice(format!(" [{} b; {end} s]\r\n", copy.record.value().len()).as_bytes());
    }
}
