//! How far a part is, on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::backup::part::Meter;

/// `total`: of the content, in bytes; 0: it is not known.
pub async fn watched<T>(label: &str, total: u64, meter: &Meter, work: impl Future<Output = T>) -> T {
    let template = match total {
        0 => "{spinner} {elapsed} {prefix} {bytes} {bytes_per_sec}",
        _ => "{elapsed} {prefix} {wide_bar} {bytes} of {total_bytes}",
    };
    let style = ProgressStyle::with_template(template).expect("the template is right");
    // Hidden by itself where standard error is no terminal.
    let bar = match total {
        0 => ProgressBar::new_spinner(),
        total => ProgressBar::new(total),
    };
    let bar = bar.with_style(style).with_prefix(label.to_owned());
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => {
                bar.finish_and_clear();
                return done;
            }
            _ = tick.tick() => bar.set_position(meter.bytes()),
        }
    }
}
