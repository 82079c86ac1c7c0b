//! Log lines. Under journald its own time and priority are used (`<N>` prefix, sd-daemon(3)),
//! elsewhere a line opens with the time.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use super::clock;

/// Said before the operator's directives, which win: openraft writes several errors for each lost heartbeat, and what they
/// lead to is logged in our own words.
const QUIET: &str = "openraft=off";

fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("{QUIET},{directives}"))
}

/// Lets a reload change what is logged.
pub struct Filter(Box<dyn Fn(EnvFilter) + Send + Sync>);

impl Filter {
    /// Replaces the filter; refuses one that cannot be read.
    pub fn set(&self, directives: &str) -> Result<(), ParseError> {
        (self.0)(filter(directives)?);
        Ok(())
    }
}

/// Whether `directives` can be read, for `config check`.
pub fn check(directives: &str) -> Result<(), ParseError> {
    filter(directives).map(drop)
}

/// Starts logging for the process. `module` opens each line: `proxy`, `supervisor`.
pub fn start<W>(module: &'static str, directives: &str, journal: bool, writer: W) -> Result<Filter, ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(directives)?);
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Lines { module, journal })
        .with_ansi(false)
        .with_writer(writer);
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Ok(Filter(Box::new(move |fresh| {
        let _ = handle.reload(fresh);
    })))
}

struct Lines {
    module: &'static str,
    journal: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = event.metadata().level();
        if self.journal {
            write!(out, "<{}>{} ", priority(level), self.module)?;
        } else {
            write!(
                out,
                "{} {:<5} {} ",
                clock::stamp(clock::wall()),
                level.as_str(),
                self.module
            )?;
        }
        context.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

/// Syslog priority.
fn priority(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}
