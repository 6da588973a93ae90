//! What the browser shows when it comes back: plain pages, complete in themselves, that say what to do next.

use std::fmt::Write as _;

/// A page, and the status that it is sent with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Page {
    status: u16,
    mark: Mark,
    title: String,
    text: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    Done,
    Stopped,
    Odd,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Line {
    Text(String),
    /// Something to type into a terminal.
    Command(String),
    /// The words of a server.
    Quote(String),
}

fn text(text: impl Into<String>) -> Line {
    Line::Text(text.into())
}

/// It worked; `next` is the command to go on with, if the one that waits does not do so itself.
pub(super) fn signed_in(account: &str, name: Option<&str>, next: Option<&str>) -> Page {
    let back = "You can close this page and go back to your terminal";
    let then = match next {
        Some(command) => vec![text(format!("{back}. The next step is:")), Line::Command(command.to_owned())],
        None => vec![text(format!("{back}, where it goes on."))],
    };
    let who = name.map_or_else(String::new, |name| format!(" as {name}"));
    Page {
        status: 200,
        mark: Mark::Done,
        title: "You are signed in".to_owned(),
        text: [vec![text(format!("postkeep can now reach the mailbox of account “{account}”{who}."))], then].concat(),
    }
}

/// The user, or the server, said no; `again` is the command to try it again with.
pub(super) fn declined(account: &str, said: &str, again: &str) -> Page {
    Page {
        status: 200,
        mark: Mark::Stopped,
        title: "You are not signed in".to_owned(),
        text: vec![
            text(format!("postkeep was not given access to the mailbox of account “{account}”. Nothing was changed.")),
            Line::Quote(said.to_owned()),
            text("You can close this page. If you want to try again, type this into your terminal:"),
            Line::Command(again.to_owned()),
        ],
    }
}

/// Something went wrong after the user said yes; `again` is the command to try it again with.
pub(super) fn failed(account: &str, why: &str, again: &str) -> Page {
    Page {
        status: 200,
        mark: Mark::Stopped,
        title: "You are not signed in yet".to_owned(),
        text: vec![
            text(format!("Something went wrong while postkeep signed in to account “{account}”.")),
            Line::Quote(why.to_owned()),
            text("You can close this page; your terminal says the same. When it is put right, try again:"),
            Line::Command(again.to_owned()),
        ],
    }
}

/// The visit belongs to another sign-in, or to none.
pub(super) fn another_sign_in() -> Page {
    Page {
        status: 400,
        mark: Mark::Odd,
        title: "This is not the sign-in that postkeep waits for".to_owned(),
        text: vec![
            text("Perhaps this page is an old one, or postkeep was started again meanwhile. Nothing was changed."),
            text("Close this page, and open the address that postkeep printed last in your terminal."),
        ],
    }
}

/// There is nothing at this address.
pub(super) fn not_here() -> Page {
    Page {
        status: 404,
        mark: Mark::Odd,
        title: "There is nothing here".to_owned(),
        text: vec![
            text("postkeep waits at this address for a sign-in, and for nothing else."),
            text("Close this page, and open the address that postkeep printed in your terminal."),
        ],
    }
}

/// The request is not one that a browser makes when it comes back.
pub(super) fn not_that_way() -> Page {
    Page { status: 405, ..not_here() }
}

/// The request does not end.
pub(super) fn too_long() -> Page {
    Page { status: 431, ..not_here() }
}

impl Page {
    #[cfg(test)]
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// Returns it as an answer of HTTP/1.1.
    pub(super) fn response(&self) -> String {
        let body = self.html();
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            _ => "Request Header Fields Too Large",
        };
        let allow = if self.status == 405 { "Allow: GET\r\n" } else { "" };
        format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n{allow}\
             Cache-Control: no-store\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\nReferrer-Policy: no-referrer\r\n\
             X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{body}",
            self.status,
            body.len()
        )
    }

    fn html(&self) -> String {
        let (class, sign) = match self.mark {
            Mark::Done => ("done", "✓"),
            Mark::Stopped => ("stopped", "!"),
            Mark::Odd => ("odd", "?"),
        };
        let title = escaped(&self.title);
        let mut lines = String::new();
        for line in &self.text {
            // Writing to a String cannot fail.
            let _ = match line {
                Line::Text(text) => writeln!(lines, "<p>{}</p>", escaped(text)),
                Line::Command(text) => writeln!(lines, "<pre>{}</pre>", escaped(text)),
                Line::Quote(text) if text.is_empty() => Ok(()),
                Line::Quote(text) => writeln!(lines, "<blockquote>{}</blockquote>", escaped(text)),
            };
        }
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title} – postkeep</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>{STYLE}</style>\n</head>\n\
             <body class=\"{class}\">\n<main>\n<div class=\"mark\" aria-hidden=\"true\">{sign}</div>\n<h1>{title}</h1>\n\
             {lines}</main>\n<footer>postkeep</footer>\n</body>\n</html>\n"
        )
    }
}

const STYLE: &str = include_str!("page.css");

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Page> {
        let (account, said) = ("personal", "<script>alert('x')</script>");
        vec![
            signed_in(account, Some("<b>@outlook.com"), Some("postkeep sync <b>")),
            signed_in(account, None, None),
            declined(account, said, "postkeep login <b>"),
            failed(account, said, "postkeep login <b>"),
            another_sign_in(),
            not_here(),
            not_that_way(),
            too_long(),
        ]
    }

    #[test]
    fn what_a_server_says_is_only_shown() {
        for page in all() {
            let html = page.html();
            assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
        }
    }

    #[test]
    fn pages_are_complete_in_themselves() {
        for page in all() {
            let response = page.response();
            let (head, body) = response.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
            assert!(head.starts_with(&format!("HTTP/1.1 {} ", page.status())), "{head}");
            assert!(!body.contains("http:") && !body.contains("https:") && !body.contains("url("), "{body}");
            assert_eq!(body.matches("<h1>").count(), 1);
        }
    }

    #[test]
    fn pages_say_what_to_do_next() {
        let (login, sync) = ("postkeep login personal", "postkeep sync personal");
        let page = signed_in("personal", Some("a@outlook.com"), Some(sync)).html();
        assert!(page.contains("<pre>postkeep sync personal</pre>") && page.contains("“personal” as a@outlook.com."));
        let page = signed_in("personal", Some("a@outlook.com"), None).html();
        assert!(page.contains("go back to your terminal, where it goes on.") && !page.contains("<pre>"));
        assert!(declined("personal", "", login).html().contains("<pre>postkeep login personal</pre>"));
        let page = failed("personal", "no", login).html();
        assert!(page.contains("<blockquote>no</blockquote>") && page.contains("<pre>postkeep login personal</pre>"));
    }
}
