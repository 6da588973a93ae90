//! Shows how a pass gets on: bars on a terminal, lines elsewhere.

use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::output::{self, many};
use crate::engine::report::{MailboxState, Progress, ProgressEvent};

/// How progress is shown, on standard error.
#[derive(Clone, Debug)]
pub(super) enum Show {
    /// A bar for each account.
    Bars(MultiProgress),
    /// A line for each thing that takes time.
    Lines,
    /// Not at all.
    Nothing,
}

/// Returns the listener for a pass over an account.
pub(super) fn listener(show: &Show, account: &str) -> Progress {
    match show {
        Show::Nothing => Progress::silent(),
        Show::Lines => {
            let account = account.to_owned();
            Progress::new(move |event| {
                if let Some(text) = line(&event) {
                    output::complain(&format!("{account}: {text}"));
                }
            })
        }
        Show::Bars(bars) => bar(bars, account),
    }
}

/// Returns the line that an event is worth; single messages are worth none.
fn line(event: &ProgressEvent) -> Option<String> {
    match event {
        ProgressEvent::Connected { host } => Some(format!("connected to {host}")),
        ProgressEvent::Listed { mailboxes: 1 } => Some("looking at 1 mailbox".to_owned()),
        ProgressEvent::Listed { mailboxes } => Some(format!("looking at {} mailboxes", output::grouped(*mailboxes))),
        ProgressEvent::Planned { downloads: 0, uploads: 0, other: 0, .. }
        | ProgressEvent::Done { .. }
        | ProgressEvent::Changed(_) => None,
        ProgressEvent::Planned { mailbox, downloads, uploads, other } => {
            let parts = [(*downloads, "to download"), (*uploads, "to upload"), (*other, "to change")];
            let text = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", output::grouped(*n)));
            Some(format!("{mailbox}: {}", text.collect::<Vec<_>>().join(", ")))
        }
        ProgressEvent::Waiting { seconds, why } => {
            Some(format!("waiting {}: {}", many(*seconds, "second"), output::harmless(why)))
        }
        ProgressEvent::Finished { mailbox, state } => ended(*state).map(|text| format!("{mailbox}: {text}")),
    }
}

fn ended(state: MailboxState) -> Option<&'static str> {
    match state {
        MailboxState::Unchanged => None,
        MailboxState::InSync => Some("in sync"),
        MailboxState::Partial => Some("not everything could be done"),
        MailboxState::Held => Some("removals are held"),
        MailboxState::Failed => Some("failed"),
    }
}

/// Returns a listener that moves a bar, which goes away with the listener.
fn bar(bars: &MultiProgress, account: &str) -> Progress {
    // A template that cannot be read would be a mistake here; indicatif's own bar does then.
    let style = ProgressStyle::with_template("{prefix} [{bar:24}] {pos}/{len} {wide_msg}")
        .map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> "));
    let bar = bars.add(ProgressBar::new(0)).with_style(style).with_prefix(account.to_owned());
    bar.set_message("connecting");
    let bar = Mutex::new(Bar { bar, bytes: 0 });
    Progress::new(move |event| bar.lock().unwrap_or_else(PoisonError::into_inner).show(&event))
}

struct Bar {
    bar: ProgressBar,
    bytes: u64,
}

impl Bar {
    fn show(&mut self, event: &ProgressEvent) {
        match event {
            ProgressEvent::Planned { downloads, uploads, other, .. } => {
                self.bar.inc_length(downloads + uploads + other);
            }
            ProgressEvent::Done { mailbox, ops, bytes } => {
                self.bytes += bytes;
                self.bar.inc(*ops);
                self.bar.set_message(format!("{}  {mailbox}", output::size(self.bytes)));
            }
            ProgressEvent::Connected { .. } | ProgressEvent::Listed { .. } | ProgressEvent::Waiting { .. } => {
                self.bar.set_message(line(event).unwrap_or_default());
            }
            ProgressEvent::Changed(_) | ProgressEvent::Finished { .. } => {}
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<ProgressEvent> {
        let mailbox = || "Lists/rust".into();
        vec![
            ProgressEvent::Connected { host: "h.example".to_owned() },
            ProgressEvent::Listed { mailboxes: 1200 },
            ProgressEvent::Listed { mailboxes: 1 },
            ProgressEvent::Planned { mailbox: mailbox(), downloads: 0, uploads: 0, other: 0 },
            ProgressEvent::Planned { mailbox: mailbox(), downloads: 20_000, uploads: 0, other: 2 },
            ProgressEvent::Done { mailbox: mailbox(), ops: 500, bytes: 5_000_000 },
            ProgressEvent::Waiting { seconds: 30, why: "throttled\r\n".to_owned() },
            ProgressEvent::Finished { mailbox: mailbox(), state: MailboxState::Unchanged },
            ProgressEvent::Finished { mailbox: mailbox(), state: MailboxState::Held },
        ]
    }

    #[test]
    fn lines_for_a_pipe() {
        let lines: Vec<String> = events().iter().filter_map(line).collect();
        let expected = [
            "connected to h.example",
            "looking at 1,200 mailboxes",
            "looking at 1 mailbox",
            "Lists/rust: 20,000 to download, 2 to change",
            "waiting 30 seconds: throttled\u{fffd}\u{fffd}",
            "Lists/rust: removals are held",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_bar_counts_ops_and_bytes_and_goes_away() {
        let mut bar = Bar { bar: ProgressBar::hidden(), bytes: 0 };
        bar.bar.set_length(0);
        events().iter().take(6).for_each(|event| bar.show(event));
        let shown = bar.bar.clone();
        assert_eq!((shown.position(), shown.length()), (500, Some(20_002)));
        assert_eq!(shown.message(), "5.0 MB  Lists/rust");
        drop(bar);
        assert!(shown.is_finished());
    }
}
