//! Tells when the machine goes to sleep, and when it has woken up, where logind says so (org.freedesktop.login1(5)).
//! Where nobody does, a clock that stood still tells as much ([`super::clock`]), only later.

use tokio::sync::mpsc;

/// What logind says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(feature = "logind"), expect(dead_code, reason = "nobody else says it"))]
pub(super) enum Sleep {
    /// The machine goes to sleep in a moment.
    Falls,
    /// It has woken up, or did not fall asleep after all.
    Ends,
}

/// Returns where it is told. To be called in a `LocalSet`.
pub(super) fn watch() -> mpsc::UnboundedReceiver<Sleep> {
    let (tell, told) = mpsc::unbounded_channel();
    #[cfg(feature = "logind")]
    tokio::task::spawn_local(async move {
        // On many machines there is none, and that is no fault.
        if let Err(error) = logind::listen(&tell).await {
            tracing::debug!(%error, "logind tells of no sleep");
        }
    });
    #[cfg(not(feature = "logind"))]
    drop(tell);
    told
}

#[cfg(feature = "logind")]
mod logind {
    use futures_util::StreamExt as _;
    use tokio::sync::mpsc;
    use zbus::message::Type;
    use zbus::{Connection, MatchRule, MessageStream};

    use super::Sleep;

    /// Tells what logind says until the bus ends.
    pub(super) async fn listen(tell: &mpsc::UnboundedSender<Sleep>) -> zbus::Result<()> {
        let bus = Connection::system().await?;
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender("org.freedesktop.login1")?
            .path("/org/freedesktop/login1")?
            .interface("org.freedesktop.login1.Manager")?
            .member("PrepareForSleep")?
            .build();
        let mut signals = MessageStream::for_match_rule(rule, &bus, None).await?;
        tracing::debug!("logind tells when the machine goes to sleep");
        while let Some(signal) = signals.next().await {
            let falls = signal?.body().deserialize::<bool>()?;
            if tell.send(if falls { Sleep::Falls } else { Sleep::Ends }).is_err() {
                break;
            }
        }
        Ok(())
    }
}
