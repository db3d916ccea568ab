//! Records as documents that an operator can read in `mongosh`: the record's JSON, nested, value for value. What is read
//! back is exactly what was written.
//!
//! BSON has no unsigned 64-bit integer: what does not fit into a signed one is kept as a decimal, which holds it exactly.

use crate::state::StateError;
use dropgate_schemas::time::Timestamp;
use mongodb::bson::{Bson, DateTime, Decimal128, Document};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Number, Value};

/// A record as it is stored.
pub(super) fn write(record: &impl Serialize) -> Result<Bson, StateError> {
    let value = serde_json::to_value(record)
        .map_err(|e| StateError::Rejected(format!("the record can't be serialised: {e}")))?;
    to_bson(value)
}

/// A record as it was stored in `field` of a document. `what` says what it is a record of.
pub(super) fn read<T: DeserializeOwned>(
    mut from: Document,
    field: &str,
    what: &str,
) -> Result<T, StateError> {
    let corrupt = |why: String| StateError::Corrupt(format!("the record of {what} can't be read: {why}"));
    let stored = from.remove(field).ok_or_else(|| corrupt(format!("it has no {field}")))?;
    let value = to_json(stored).map_err(corrupt)?;
    serde_json::from_value(value).map_err(|e| corrupt(e.to_string()))
}

/// A moment as MongoDB keeps it: with milliseconds, as we do.
pub(super) fn date(moment: Timestamp) -> DateTime {
    DateTime::from_millis(moment.millis())
}

/// A count or number; ours stay far below what is cut off here.
pub(super) fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A number of a document, whichever of its types the server chose.
pub(super) fn number(from: &Document, field: &str) -> Result<u64, StateError> {
    let n = match from.get(field) {
        Some(Bson::Int64(n)) => Some(*n),
        Some(Bson::Int32(n)) => Some(i64::from(*n)),
        Some(Bson::Double(n)) if n.fract() == 0.0 && n.abs() < 9e15 => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a whole number within the range was asked for"
            )]
            let whole = *n as i64;
            Some(whole)
        }
        _ => None,
    };
    n.and_then(|n| u64::try_from(n).ok()).ok_or_else(|| {
        StateError::Corrupt(format!("{field} of a document is not a number: {:?}", from.get(field)))
    })
}

/// A text of a document.
pub(super) fn text<'a>(from: &'a Document, field: &str) -> Result<&'a str, StateError> {
    from.get_str(field).map_err(|e| StateError::Corrupt(format!("{field} of a document is not a text: {e}")))
}

/// A moment of a document.
pub(super) fn moment(from: &Document, field: &str) -> Result<Timestamp, StateError> {
    from.get_datetime(field)
        .map(|date| Timestamp::from_millis(date.timestamp_millis()))
        .map_err(|e| StateError::Corrupt(format!("{field} of a document is not a moment: {e}")))
}

fn to_bson(value: Value) -> Result<Bson, StateError> {
    Ok(match value {
        Value::Null => Bson::Null,
        Value::Bool(b) => Bson::Boolean(b),
        Value::String(s) => Bson::String(s),
        Value::Number(n) => number_to_bson(&n)?,
        Value::Array(items) => Bson::Array(items.into_iter().map(to_bson).collect::<Result<_, _>>()?),
        Value::Object(fields) => {
            let mut document = Document::new();
            for (name, value) in fields {
                document.insert(name, to_bson(value)?);
            }
            Bson::Document(document)
        }
    })
}

fn number_to_bson(n: &Number) -> Result<Bson, StateError> {
    if let Some(n) = n.as_i64() {
        // Short ones print as plain numbers.
        return Ok(i32::try_from(n).map_or(Bson::Int64(n), Bson::Int32));
    }
    let refused =
        |e: &dyn std::fmt::Display| StateError::Rejected(format!("the number {n} can't be stored: {e}"));
    if n.is_u64() {
        return n.to_string().parse::<Decimal128>().map(Bson::Decimal128).map_err(|e| refused(&e));
    }
    n.as_f64().map(Bson::Double).ok_or_else(|| refused(&"it has no exact form"))
}

fn to_json(value: Bson) -> Result<Value, String> {
    Ok(match value {
        Bson::Null => Value::Null,
        Bson::Boolean(b) => Value::Bool(b),
        Bson::String(s) => Value::String(s),
        Bson::Int32(n) => n.into(),
        Bson::Int64(n) => n.into(),
        Bson::Double(n) => {
            Number::from_f64(n).map(Value::Number).ok_or_else(|| format!("{n} is no number"))?
        }
        Bson::Decimal128(n) => {
            n.to_string().parse::<u64>().map(Value::from).map_err(|e| format!("the number {n}: {e}"))?
        }
        Bson::Array(items) => Value::Array(items.into_iter().map(to_json).collect::<Result<_, _>>()?),
        Bson::Document(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| Ok((name, to_json(value)?)))
                .collect::<Result<_, String>>()?,
        ),
        other => return Err(format!("it holds a {:?}", other.element_type())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::doc;
    use proptest::prelude::*;
    use serde_json::json;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9_f64..1e9).prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 30, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[a-z_$.]{0,8}", inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn everything_that_json_can_say_comes_back_as_it_was(value in any_value()) {
            let stored = doc! { "record": write(&value).unwrap() };
            let bytes = stored.to_vec().unwrap();
            let stored = Document::from_reader(&bytes[..]).unwrap();
            let back: Value = read(stored, "record", "a test").unwrap();
            prop_assert_eq!(back, value);
        }
    }

    #[test]
    fn small_numbers_are_plain_and_the_largest_are_exact() {
        let stored = write(&json!({"small": 7, "large": 1_u64 << 40, "largest": u64::MAX})).unwrap();
        let Bson::Document(stored) = stored else { panic!("{stored:?}") };
        assert_eq!(stored.get("small"), Some(&Bson::Int32(7)));
        assert_eq!(stored.get("large"), Some(&Bson::Int64(1 << 40)));
        assert_eq!(stored.get("largest").unwrap().to_string(), "18446744073709551615");
    }

    #[test]
    fn what_is_no_record_is_corrupt() {
        for stored in [doc! {}, doc! { "record": "text" }, doc! { "record": { "n": Bson::MaxKey } }] {
            let result: Result<std::collections::BTreeMap<String, u64>, _> = read(stored, "record", "a test");
            assert!(matches!(result, Err(StateError::Corrupt(_))), "{result:?}");
        }
    }
}
