//! Files that PHP hands over instead of sending: `X-Accel-Redirect` in its answer names one, and the front serves it.
//!
//! - A path below the document root: served as any file is, with what PHP says of it (`merge`). The deny list holds, but for folders that
//!   are meant for this alone; a script is never the target.
//! - `/upload/resize_cache/x/…`: the same without the `x`; where there is none, the script in `X-Gen-Src` makes it.
//! - `/upload/bx_cloud_upload/<scheme>.<host>/…`: an object at a cloud store, fetched without the client's secrets (`cloud`), from hosts
//!   of `proxy.cloud_hosts` alone.
//!
//! Only what PHP says counts: a client cannot name such a target, and fields of other upstreams are dropped.

mod aim;
mod cloud;
mod merge;
mod order;

pub use aim::{Aim, aim};
pub use cloud::Cloud;
pub use merge::merge;
pub use order::{Order, strip, take};
