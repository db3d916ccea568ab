//! What the adapters for RabbitMQ share: one way to a broker that is made anew whenever it breaks, and publishing with
//! confirms over it. Queue and events differ in their topology only.

mod failure;
mod link;
mod publish;
mod server;
#[cfg(test)]
#[cfg(feature = "server-tests")]
pub(crate) mod testing;

pub(crate) use failure::{Failure, Kind};
pub(crate) use link::{Link, Live, Topology};
pub(crate) use publish::{Message, Partly, persistent, publish};
pub(crate) use server::{Keys, Server};

use lapin::types::{AMQPValue, FieldTable};

/// Arguments of a queue.
pub(crate) fn arguments<const N: usize>(pairs: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert(name.into(), value);
    }
    table
}

/// A text as an argument.
pub(crate) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// A number as an argument.
pub(crate) fn number(value: impl Into<i64>) -> AMQPValue {
    AMQPValue::LongLongInt(value.into())
}

/// Whether names can be made of a configured prefix.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if prefix.is_empty() || prefix.len() > 100 || !prefix.chars().all(fits) || prefix.starts_with("amq.") {
        let why = format!("`prefix` {prefix:?} makes no names: use up to 100 letters, digits, `.`, `-`, `_`");
        return Err(Failure::new(Kind::Settings, why));
    }
    Ok(())
}
