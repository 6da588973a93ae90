//! From the greeting to a session.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tracing::debug;
use zeroize::Zeroizing;

use super::command::Command;
use super::connection::{Capabilities, Connection, Event, Outcome};
use super::guard::Guard;
use super::name::Namespace;
use super::parse::{Code, Data};
use super::wire::{Answer, Status, Stream, Wire};
use super::{Connect, Error, Quirks, Session, error};
use crate::model::Secret;

/// How to sign in.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A user name and a password: AUTHENTICATE PLAIN (RFC 4616), else LOGIN.
    Password {
        /// The name that the server knows the user by.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth access token: AUTHENTICATE XOAUTH2.
    Token {
        /// The name that the server knows the user by; at Microsoft that of the account, not an alias.
        username: String,
        /// The access token, which ends the session when it expires.
        token: Secret,
    },
}

/// A mechanism that asks more often than this is none of those used here.
const MAX_CHALLENGES: usize = 4;

/// Signs in over a fresh stream that is safe to send a password over.
pub(super) async fn sign_in(stream: Stream, connect: &Connect, credentials: &Credentials) -> Result<Session, Error> {
    let guard = Guard::new(stream, &connect.spool_dir, connect.max_literal);
    let wire = Wire::new(guard, connect.timeout, connect.max_literal);
    let mut connection = Connection::new(wire, connect.quirks.clone());
    let (code, text) = greeting(&mut connection).await?;
    if Quirks::is_exchange(&text) {
        connection.quirks = Quirks::outlook();
    }
    learn(&mut connection, &code).await?;
    let outcome = match credentials {
        Credentials::Password { username, password } => with_password(&mut connection, username, password).await?,
        Credentials::Token { username, token } => with_token(&mut connection, username, token).await?,
    };
    if outcome.status != Status::Ok {
        let Outcome { code, text, .. } = outcome;
        return Err(error::not_let_in(&code.name, text));
    }
    connection.wire.guard().signed_in();
    // What was announced before says nothing of what a user can do.
    learn(&mut connection, &outcome.code).await?;
    introduce(connection).await
}

async fn greeting(connection: &mut Connection) -> Result<(Code, String), Error> {
    loop {
        match connection.receive().await? {
            Answer::Untagged { status: Status::Ok, code, text } => return Ok((code, text)),
            Answer::Untagged { status: Status::Preauth, .. } => {
                let text =
                    "the server takes us for somebody who has signed in already (PREAUTH); that is not supported";
                return Err(Error::Configuration(text.to_owned()));
            }
            Answer::Untagged { text, .. } => {
                return Err(error::not_greeted(text));
            }
            Answer::Data(Data::Stray(_)) | Answer::Tagged { .. } | Answer::Continue => {
                return Err(Error::Protocol("this is no IMAP server".to_owned()));
            }
            _ => {}
        }
    }
}

/// Takes the capabilities from a response code, or asks for them.
async fn learn(connection: &mut Connection, code: &Code) -> Result<(), Error> {
    let mut names = code.is("CAPABILITY").then(|| code.words());
    if names.is_none() {
        let command = connection.command("CAPABILITY");
        let on = |answer| {
            if let Answer::Data(Data::Capability(list)) = answer {
                names = Some(list);
            }
            Ok(())
        };
        connection.run_all(vec![command], 1, None, on).await?;
    }
    connection.capabilities = Capabilities::new(names.unwrap_or_default(), &connection.quirks);
    Ok(())
}

async fn with_password(connection: &mut Connection, username: &str, password: &Secret) -> Result<Outcome, Error> {
    if connection.capabilities.has("AUTH=PLAIN") {
        let message = Zeroizing::new(format!("\0{username}\0{}", password.expose()));
        return authenticate(connection, "PLAIN", &message).await;
    }
    if connection.capabilities.has("LOGINDISABLED") {
        let text = "it accepts no passwords (LOGINDISABLED)".to_owned();
        return Err(Error::SignIn { text });
    }
    let login = Command::new("LOGIN", connection.capabilities.literals());
    let command = login.string(username.as_bytes()).string(password.expose().as_bytes()).secret();
    let mut flight = connection.fly(vec![command], 1)?;
    while let Some(event) = flight.next().await? {
        if let Event::Done(_, outcome) = event {
            flight.next().await?;
            return Ok(outcome);
        }
    }
    Err(Error::Protocol("LOGIN was not answered".to_owned()))
}

async fn with_token(connection: &mut Connection, username: &str, token: &Secret) -> Result<Outcome, Error> {
    if !connection.capabilities.has("AUTH=XOAUTH2") {
        let text = "it does not accept OAuth tokens (no AUTH=XOAUTH2)".to_owned();
        return Err(Error::SignIn { text });
    }
    let message = Zeroizing::new(format!("user={username}\x01auth=Bearer {}\x01\x01", token.expose()));
    authenticate(connection, "XOAUTH2", &message).await
}

/// Runs AUTHENTICATE (RFC 3501 §6.2.2) with the one message that the mechanism needs.
async fn authenticate(connection: &mut Connection, mechanism: &str, message: &str) -> Result<Outcome, Error> {
    let message = Zeroizing::new(STANDARD.encode(message));
    // SASL-IR (RFC 4959) saves a round trip.
    let at_once = connection.capabilities.has("SASL-IR");
    let first = if at_once {
        format!("AUTHENTICATE {mechanism} {}\r\n", *message)
    } else {
        format!("AUTHENTICATE {mechanism}\r\n")
    };
    let first = Zeroizing::new(first);
    connection.begin()?;
    let sent = connection.send("AUTHENTICATE", first.as_bytes(), true);
    let mut unsent = (!at_once).then_some(&message);
    for _ in 0..MAX_CHALLENGES {
        let answer = loop {
            let answer = connection.receive().await?;
            if matches!(answer, Answer::Tagged { .. } | Answer::Continue) {
                break answer;
            }
        };
        match answer {
            Answer::Tagged { tag, status, code, text } if tag == sent => {
                connection.settle();
                return Ok(Outcome { command: "AUTHENTICATE", status, code, text });
            }
            Answer::Continue => {
                // A second challenge is the reason of a refusal, which an empty line asks to be made official.
                if let Some(message) = unsent.take() {
                    connection.wire.queue(message.as_bytes(), true);
                }
                connection.wire.queue(b"\r\n", false);
            }
            _ => break,
        }
    }
    Err(Error::Protocol("the exchange of AUTHENTICATE did not end".to_owned()))
}

/// Turns on what is of use, says who we are, and learns where the mailboxes are.
async fn introduce(mut connection: Connection) -> Result<Session, Error> {
    let has = |name| connection.capabilities.has(name);
    let mut commands = Vec::new();
    if has("ENABLE") && has("QRESYNC") {
        commands.push(connection.command("ENABLE").words("QRESYNC"));
    } else if has("ENABLE") && has("CONDSTORE") {
        commands.push(connection.command("ENABLE").words("CONDSTORE"));
    }
    if has("ID") {
        let version = env!("CARGO_PKG_VERSION");
        commands.push(connection.command("ID").words(format_args!(r#"("name" "postkeep" "version" "{version}")"#)));
    }
    if has("NAMESPACE") {
        commands.push(connection.command("NAMESPACE"));
    } else {
        // Answers with the separator (RFC 3501 §6.3.8).
        commands.push(connection.command("LIST").words(r#""" """#));
    }
    let (mut namespace, mut qresync, mut exchange) = (Namespace::default(), false, false);
    let mut flight = connection.fly(commands, 3)?;
    while let Some(event) = flight.next().await? {
        match event {
            Event::Answer(Answer::Data(Data::Enabled(names))) => qresync |= names.iter().any(|n| n == "QRESYNC"),
            Event::Answer(Answer::Data(Data::Namespace(kinds))) => namespace = Namespace::new(kinds),
            Event::Answer(Answer::Data(Data::List(line))) => namespace.separator = line.separator,
            Event::Answer(Answer::Data(Data::Id(words))) => exchange |= Quirks::is_exchange(&words),
            Event::Answer(_) => {}
            Event::Done(_, outcome) => match outcome.check(None) {
                // Exchange answers OK to a sign-in, and then to whatever comes first that it is not connected.
                Err(error) if error.is_for_the_session() => return Err(error),
                Err(error) => debug!(%error, "went on without"),
                Ok(_) => {}
            },
        }
    }
    if exchange && connection.quirks.habits.is_empty() {
        connection.quirks = Quirks::outlook();
        connection.capabilities = connection.capabilities.less(&connection.quirks);
    }
    Ok(Session { connection, namespace, qresync, cutter: None, way: None })
}
