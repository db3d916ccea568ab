//! Magika's model and what goes with it: the names of its outputs and from which score on each is believed.

use dropgate_schemas::content::ContentType;
use serde::Deserialize;
use std::{collections::HashMap, io::Cursor, sync::Arc};
use tract_onnx::{pb::ModelProto, prelude::*};

/// As published, see `gateway/models/magika/README.md`.
const MODEL: &[u8] = include_bytes!("../../../../models/magika/model.onnx");
const CONFIG: &str = include_str!("../../../../models/magika/config.min.json");
const KINDS: &str = include_str!("../../../../models/magika/content_types_kb.min.json");

/// Text that is nothing else, and what is neither.
const TXT: &str = "txt";
const UNKNOWN: &str = "unknown";

/// What the model says of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) kind: Kind,
    /// Of the output that was highest, from 0 to 1.
    pub(super) score: f32,
}

/// One of the things that a file may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) label: String,
    mime: String,
    pub(super) is_text: bool,
}

impl Kind {
    /// Says nothing but "text" or "not text".
    pub(super) fn is_generic(&self) -> bool {
        matches!(self.label.as_str(), TXT | UNKNOWN)
    }
}

impl From<Answer> for ContentType {
    fn from(answer: Answer) -> Self {
        Self {
            mime: answer.kind.mime,
            label: answer.kind.label,
            found_by: "magika".to_owned(),
            score_permille: Some(permille(answer.score)),
            model_missed: None,
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000")]
fn permille(score: f32) -> u16 {
    (score * 1000.0).round().clamp(0.0, 1000.0) as u16
}

/// The model, ready to run.
pub(super) struct Model {
    plan: Arc<TypedRunnableModel>,
    outputs: Vec<Output>,
    text: Kind,
    unknown: Kind,
}

/// The files are not what this code was written for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unexpected(String);

/// One output of the model.
struct Output {
    kind: Kind,
    /// From this score on it is believed.
    threshold: f32,
}

/// The parts of `config.min.json` that are not fixed by the input of the model.
#[derive(Deserialize)]
struct Config {
    target_labels_space: Vec<String>,
    thresholds: HashMap<String, f32>,
    medium_confidence_threshold: f32,
    overwrite_map: HashMap<String, String>,
}

/// An entry of `content_types_kb.min.json`.
#[derive(Deserialize)]
struct Entry {
    mime_type: Option<String>,
    is_text: bool,
}

impl Model {
    /// Unpacks and optimises the model: a part of a second, and some 40 MB of memory.
    pub(super) fn load() -> TractResult<Self> {
        let config: Config = serde_json::from_str(CONFIG)?;
        let entries: HashMap<String, Entry> = serde_json::from_str(KINDS)?;
        let kind = |label: &str| -> TractResult<Kind> {
            let entry = entries
                .get(label)
                .ok_or_else(|| Unexpected(format!("nothing is known of the label {label}")))?;
            let default = if entry.is_text { "text/plain" } else { "application/octet-stream" };
            let mime = entry.mime_type.as_deref().unwrap_or(default).to_owned();
            Ok(Kind { label: label.to_owned(), mime, is_text: entry.is_text })
        };
        let output = |label: &String| -> TractResult<Output> {
            let threshold = config.thresholds.get(label).copied();
            Ok(Output {
                kind: kind(config.overwrite_map.get(label).unwrap_or(label))?,
                threshold: threshold.unwrap_or(config.medium_confidence_threshold),
            })
        };
        let onnx = tract_onnx::onnx();
        let mut graph = onnx.proto_model_for_read(&mut Cursor::new(MODEL))?;
        look_up(&mut graph)?;
        let plan = onnx
            .model_for_proto_model(&graph)?
            .with_input_fact(0, i32::fact([1, 2 * super::features::END]).into())?
            .into_optimized()?
            .into_runnable()?;
        Ok(Self {
            plan,
            outputs: config.target_labels_space.iter().map(output).collect::<TractResult<_>>()?,
            text: kind(TXT)?,
            unknown: kind(UNKNOWN)?,
        })
    }

    /// What the file with these features is. A kind whose score is below its threshold is answered by the generic one, as
    /// Magika does in its mode `high-confidence`.
    pub(super) fn identify(&self, features: &[i32]) -> TractResult<Answer> {
        let input = Tensor::from_shape(&[1, features.len()], features)?;
        let results = self.plan.run(tvec!(input.into()))?;
        let result = results.first().ok_or_else(|| Unexpected("the model has no output".to_owned()))?;
        let scores = result.try_as_plain_ram()?.as_slice::<f32>()?;
        let (output, &score) = self
            .outputs
            .iter()
            .zip(scores)
            // The first of equals.
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
            .ok_or_else(|| Unexpected("the model gave no score".to_owned()))?;
        let kind = match &output.kind {
            kind if score >= output.threshold => kind,
            kind if kind.is_text => &self.text,
            _ => &self.unknown,
        };
        Ok(Answer { kind: kind.clone(), score })
    }
}

/// The model spells the look-up of each byte's row in a table as a product of the table with columns of zeros and one 1,
/// which takes half of its time. A look-up gives the very same numbers.
fn look_up(graph: &mut ModelProto) -> TractResult<()> {
    let mut nodes = graph.graph.iter_mut().flat_map(|graph| &mut graph.node);
    let product = nodes
        .find(|node| node.op_type == "MatMul")
        .ok_or_else(|| Unexpected("the model has no product".to_owned()))?;
    let [_, table] = product.input.as_slice() else {
        return Err(Unexpected("a product of more than two".to_owned()).into());
    };
    product.input = vec![table.clone(), "bytes".to_owned()];
    product.op_type = "Gather".to_owned();
    Ok(())
}
