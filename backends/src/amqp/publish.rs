//! Publishing with confirms.

use super::{Failure, Kind, Live};
use lapin::{BasicProperties, Channel, Confirmation, options::BasicPublishOptions, types::ShortString};
use std::time::Duration;
use tokio::time::timeout;

/// Messages that wait for their confirms at a time.
const WINDOW: usize = 256;
/// On disk before it is confirmed.
const PERSISTENT: u8 = 2;

/// One message.
pub(crate) struct Message {
    pub(crate) routing_key: ShortString,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

/// Not everything was published.
pub(crate) struct Partly {
    /// So many from the first on are; of the rest, any may be there.
    pub(crate) confirmed: usize,
    pub(crate) failure: Failure,
}

impl From<Partly> for Failure {
    fn from(partly: Partly) -> Self {
        partly.failure
    }
}

/// Properties of a message that outlives a restart of the broker.
pub(crate) fn persistent(content_type: &str, message_id: &str) -> BasicProperties {
    BasicProperties::default()
        .with_content_type(content_type.into())
        .with_message_id(message_id.into())
        .with_delivery_mode(PERSISTENT)
}

/// Publishes in the order given. On return the broker has confirmed every message.
/// Connections that do not answer within `patience` are given up.
pub(crate) async fn publish(
    live: &Live,
    exchange: &str,
    messages: &[Message],
    mandatory: bool,
    patience: Duration,
) -> Result<(), Partly> {
    let mut confirmed = 0;
    let blocked = || Failure::new(Kind::Full, "the broker takes no messages: it is short of memory or disk");
    if live.is_blocked() {
        return Err(Partly { confirmed, failure: blocked() });
    }
    let published = tokio::select! {
        published = timeout(patience, publish_all(&live.channel, exchange, messages, mandatory, &mut confirmed)) => published,
        () = live.ended() => Ok(Err(Failure::new(Kind::Away, "the connection was lost"))),
    };
    let outcome = match published {
        Ok(Err(failure)) => {
            // A channel does not survive a refusal, and what was declared may be gone.
            if failure.kind != Kind::Full {
                live.is_broken();
            }
            Err(failure)
        }
        Ok(Ok(())) => Ok(()),
        Err(_) if live.is_blocked() => Err(blocked()),
        Err(_) => {
            live.is_broken();
            Err(Failure::new(Kind::Away, format!("no confirm within {:.1} s", patience.as_secs_f32())))
        }
    };
    outcome.map_err(|failure| Partly { confirmed, failure })
}

async fn publish_all(
    channel: &Channel,
    exchange: &str,
    messages: &[Message],
    mandatory: bool,
    confirmed: &mut usize,
) -> Result<(), Failure> {
    let options = BasicPublishOptions { mandatory, immediate: false };
    for window in messages.chunks(WINDOW) {
        let mut confirms = Vec::with_capacity(window.len());
        for message in window {
            let (key, properties) = (message.routing_key.clone(), message.properties.clone());
            let sent = channel.basic_publish(exchange.into(), key, options, &message.body, properties).await;
            confirms.push(sent.map_err(|e| Failure::from(&e))?);
        }
        // All of them are waited for, whatever becomes of one: nobody shall find them later.
        let mut outcome = Ok(());
        for confirm in confirms {
            let this = match confirm.await {
                Ok(Confirmation::Ack(None)) => Ok(()),
                Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) => {
                    Err(Failure::new(
                        Kind::Missing,
                        format!(
                            "the broker returned a message for {exchange} ({}): the queue it is meant for is not there",
                            returned.reply_text
                        ),
                    ))
                }
                Ok(Confirmation::Nack(None)) => {
                    Err(Failure::new(Kind::Full, format!("the broker did not take a message for {exchange}")))
                }
                Ok(Confirmation::NotRequested) => {
                    Err(Failure::new(Kind::Away, "the broker confirms nothing on this channel"))
                }
                Err(error) => Err(Failure::from(&error)),
            };
            outcome = outcome.and(this);
            if outcome.is_ok() {
                *confirmed += 1;
            }
        }
        outcome?;
    }
    Ok(())
}
