//! Pages that the portal keeps for its visitors ("composite" pages), served without PHP.
//!
//! The portal writes them below `/bitrix/html_pages`, or into the cache module's composite storage (`shelf`, `stored`), and says by two
//! files in that folder whether they may be used and for what: `.enabled`
//! is the switch, `.config.php` the settings. Both are looked at once a second (`pages`), read without PHP (`php_array`, `options`),
//! and each request is judged as the portal's own early script would judge it (`decide`). In doubt PHP answers: it knows the
//! same pages, only slower. A page that is half written, larger than what is kept in memory, or stored in another memcached is PHP's,
//! too. A file that changed or went away shows after a second (`static_file`), what lies in the cache at once.

mod content;
mod decide;
mod mask;
mod options;
mod pages;
mod php_array;
mod query;
mod shelf;
mod stored;

pub use pages::Pages;
pub use shelf::Shelf;
