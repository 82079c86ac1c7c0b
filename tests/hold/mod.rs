//! Holds of exclusive seats as a supervisor carries them out, asked as its agent does: floating addresses in network namespaces,
//! and the portal's jobs. Needs root.

mod address;
mod cron;
mod machine;
