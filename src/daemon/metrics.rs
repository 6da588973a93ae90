//! What the daemon did, in numbers, for programs that draw curves: a file of OpenMetrics text.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use super::live::LiveAccount;

/// The file, which is written only when the numbers are others.
#[derive(Debug)]
pub(super) struct Metrics {
    path: PathBuf,
    written: String,
    said: Option<String>,
}

impl Metrics {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, written: String::new(), said: None }
    }

    /// Writes the file, so that nobody reads half of it. A failure is told once.
    pub(super) fn write(&mut self, accounts: &[LiveAccount]) {
        let text = text(accounts);
        if text == self.written {
            return;
        }
        match self.replace(&text) {
            Ok(()) => (self.written, self.said) = (text, None),
            Err(error) => {
                let error = error.to_string();
                if self.said.as_ref() != Some(&error) {
                    tracing::warn!(file = %self.path.display(), error, "the metrics cannot be written");
                }
                self.said = Some(error);
            }
        }
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let mut draft = self.path.clone().into_os_string();
        draft.push(".tmp");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&draft)?;
        // There is nothing in it that others should not read, and the exporter is somebody else.
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())?;
        fs::rename(&draft, &self.path)
    }
}

/// Returns the numbers as <https://prometheus.io/docs/specs/om/open_metrics_spec/> says.
fn text(accounts: &[LiveAccount]) -> String {
    type Samples = fn(&LiveAccount) -> Vec<(&'static str, i64)>;
    let families: [(&str, &str, &str, Samples); 7] = [
        ("postkeep_messages", "counter", "Messages, by what was done to them.", |live| {
            let total = live.total;
            vec![
                ("{done=\"downloaded\"}", signed(total.downloaded)),
                ("{done=\"uploaded\"}", signed(total.uploaded)),
                ("{done=\"flagged\"}", signed(total.flags)),
                ("{done=\"moved\"}", signed(total.moved)),
                ("{done=\"removed\"}", signed(total.removed)),
            ]
        }),
        ("postkeep_transferred_bytes", "counter", "Bytes of the messages that were transferred.", |live| {
            vec![("", signed(live.total.bytes))]
        }),
        ("postkeep_passes", "counter", "Passes, by how they ended.", |live| {
            vec![("{end=\"success\"}", signed(live.total.passes)), ("{end=\"failure\"}", signed(live.total.failed))]
        }),
        ("postkeep_up", "gauge", "1 if the account can be mirrored now.", |live| {
            vec![("", i64::from(live.problem.is_none()))]
        }),
        ("postkeep_watched_mailboxes", "gauge", "Mailboxes that the server tells of at once.", |live| {
            vec![("", signed(live.watched.len() as u64))]
        }),
        ("postkeep_files_watched", "gauge", "1 if the system tells of changed files.", |live| {
            vec![("", i64::from(live.files_watched))]
        }),
        ("postkeep_complete_timestamp_seconds", "gauge", "When everything was looked at last.", |live| {
            live.swept_at.map(|at| ("", at)).into_iter().collect()
        }),
    ];
    let mut text = String::new();
    // Writing to a String cannot fail.
    for (family, kind, help, samples) in families {
        let _ = writeln!(text, "# TYPE {family} {kind}\n# HELP {family} {help}");
        let suffix = if kind == "counter" { "_total" } else { "" };
        for live in accounts {
            // The name of an account has no character that would have to be escaped.
            let account = &live.account;
            for (label, value) in samples(live) {
                let labels = match label.strip_prefix('{') {
                    Some(more) => format!("{{account=\"{account}\",{more}"),
                    None => format!("{{account=\"{account}\"}}"),
                };
                let _ = writeln!(text, "{family}{suffix}{labels} {value}");
            }
        }
    }
    text + "# EOF\n"
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::live::Total;
    use super::*;

    #[test]
    fn numbers_are_told_by_account() {
        let total = Total { downloaded: 7, bytes: 1234, passes: 3, ..Total::default() };
        let live = LiveAccount { account: "a".into(), total, swept_at: Some(99), ..LiveAccount::default() };
        let text = text(&[live]);
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "postkeep_messages_total{account=\"a\",done=\"downloaded\"} 7",
            "postkeep_messages_total{account=\"a\",done=\"uploaded\"} 0",
            "postkeep_messages_total{account=\"a\",done=\"flagged\"} 0",
            "postkeep_messages_total{account=\"a\",done=\"moved\"} 0",
            "postkeep_messages_total{account=\"a\",done=\"removed\"} 0",
            "postkeep_transferred_bytes_total{account=\"a\"} 1234",
            "postkeep_passes_total{account=\"a\",end=\"success\"} 3",
            "postkeep_passes_total{account=\"a\",end=\"failure\"} 0",
            "postkeep_up{account=\"a\"} 1",
            "postkeep_watched_mailboxes{account=\"a\"} 0",
            "postkeep_files_watched{account=\"a\"} 0",
            "postkeep_complete_timestamp_seconds{account=\"a\"} 99",
        ];
        assert_eq!(samples, expected);
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_file_is_replaced_whole_and_only_if_it_is_another() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postkeep.prom");
        let mut metrics = Metrics::new(path.clone());
        metrics.write(&[]);
        let first = fs::metadata(&path).unwrap();
        assert_eq!(first.mode() & 0o777, 0o644);
        metrics.write(&[]);
        assert_eq!(fs::metadata(&path).unwrap().ino(), first.ino());
        metrics.write(&[LiveAccount::default()]);
        assert_ne!(fs::metadata(&path).unwrap().ino(), first.ino());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
