//! `dropgate uploads show`: one upload with its deliveries and its timeline.

use super::as_json;
use crate::{
    cli::Json,
    commands::{account::say, audit, open::Open},
    logging::escape,
    table::{Table, bytes},
};
use dropgate_backends::{AuditQuery, state::StoredAudit};
use dropgate_schemas::{
    content::{ContentType, ModelMissed},
    delivery::Delivery,
    id::UploadId,
    upload::Upload,
};
use serde_json::Value;
use std::fmt::Write as _;

/// Runs `uploads show`.
///
/// # Errors
/// If there is no such upload or a store does not answer.
pub(crate) async fn run(open: &Open, id: UploadId, json: Json) -> anyhow::Result<()> {
    let upload = open.upload(id).await?;
    let query = AuditQuery { upload: Some(id), ..AuditQuery::default() };
    let timeline = audit::newest(open.state(), query, usize::MAX).await?;
    if json.json {
        let mut value = as_json(&upload)?;
        let entries = timeline.iter().map(audit::as_json).collect::<Result<Vec<_>, _>>()?;
        if let Some(object) = value.as_object_mut() {
            object.insert("timeline".to_owned(), Value::Array(entries));
        }
        return say(&serde_json::to_string_pretty(&value)?);
    }
    let entries = timeline.iter().map(StoredAudit::entry).collect::<Result<Vec<_>, _>>()?;
    say(format!("{}\n{}", facts(&upload), audit::table(&entries)).trim_end())
}

/// Such as `text/x-python, python (by magika, 0.998)`.
fn content_type(found: &ContentType) -> String {
    let ContentType { mime, label, found_by, .. } = found;
    let score = found.score().map_or_else(String::new, |score| format!(", {score}"));
    let missed = match found.model_missed {
        None => "",
        Some(ModelMissed::Busy) => "; the model had had its share of the processor",
        Some(ModelMissed::Late) => "; the model was too late",
        Some(ModelMissed::Failed) => "; the model failed",
    };
    format!("{mime}, {label} (by {found_by}{score}{missed})")
}

fn facts(upload: &Upload) -> String {
    let optional = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let content = upload.content_type.as_ref().map(content_type);
    let evidence = upload
        .evidence
        .and_then(|grade| serde_json::to_value(grade).ok())
        .and_then(|value| value.as_str().map(str::to_owned));
    let mut state = upload.state.to_string();
    if let Some(reason) = &upload.reason {
        let _ = write!(state, ": {} ({})", escape(&reason.sentence), reason.code);
    }
    if let Some(deleted) = upload.deleted_at {
        let _ = write!(state, ", deleted {deleted}");
    }
    let mut text = String::new();
    for (name, value) in [
        ("upload", upload.upload_id.to_string()),
        ("path", escape(&upload.path.to_string())),
        ("opened as", escape(&upload.opened_as.to_string())),
        ("version", upload.version.to_string()),
        ("state", state),
        ("account", format!("{} of {}", upload.account, upload.partner)),
        ("size", format!("{} bytes ({})", upload.visible_size(), bytes(upload.visible_size()))),
        ("sha256", optional(upload.sha256.map(|digest| digest.to_string()))),
        ("content type", optional(content)),
        ("completeness", optional(evidence)),
        (
            "client",
            format!(
                "{} from {}, by {}",
                escape(&upload.client.software),
                upload.client.source,
                upload.client.credential
            ),
        ),
        ("opened", upload.opened_at.to_string()),
        ("received", optional(upload.received_at.map(|at| at.to_string()))),
        ("settled", optional(upload.settled_at.map(|at| at.to_string()))),
        ("receipt", optional(upload.receipt_id.map(|id| id.to_string()))),
        ("supersedes", optional(upload.supersedes.map(|id| id.to_string()))),
        ("superseded by", optional(upload.superseded_by.map(|id| id.to_string()))),
        ("retry of", optional(upload.retry_of.map(|id| id.to_string()))),
    ] {
        if value != "-" {
            let _ = writeln!(text, "{name:<14} {value}");
        }
    }
    if !upload.deliveries.is_empty() {
        let mut table =
            Table::new(["DESTINATION", "STATE", "TRIES", "GENERATION", "WHERE", "NOTE"]).right(2).right(3);
        for delivery in &upload.deliveries {
            table.row([
                delivery.destination.to_string(),
                word(delivery.state),
                delivery.attempts.to_string(),
                delivery.generation.to_string(),
                delivery.receipt.as_ref().map_or_else(|| delivery.key.clone(), |receipt| receipt.uri.clone()),
                note(delivery),
            ]);
        }
        let _ = write!(text, "\n{table}");
    }
    text
}

fn note(delivery: &Delivery) -> String {
    let proof = delivery.receipt.as_ref().map(|r| format!("verified by {}", word(r.verified_by)));
    let reason = delivery.reason.as_ref().map(|r| format!("{}: {}", r.code, r.sentence));
    let next =
        delivery.next_attempt_at.filter(|_| !delivery.state.is_final()).map(|at| format!("next try {at}"));
    let parts = if proof.is_some() { vec![proof] } else { vec![reason, next] };
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// The name of a value as it is stored.
fn word<T: serde::Serialize>(value: T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}
