//! Log lines on standard error: for people on a terminal, JSON for machines. Whatever a client sent is escaped and capped
//! here, in one place, so that nobody can forge a line or flood the log with one value.

use serde::{Deserialize, Serialize};
use std::{
    fmt::{self, Write as _},
    io::IsTerminal as _,
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    registry::LookupSpan,
};

/// The longest value in a log line, in bytes.
pub(crate) const LONGEST: usize = 1024;

/// `[log]`: what is logged and how. Logs go to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogConfig {
    /// What is logged, as `RUST_LOG` spells it: `info`, `warn,dropgate_gateway=debug`. The variable `RUST_LOG` wins.
    /// Default `info`.
    pub(crate) filter: String,
    /// `auto` (for people on a terminal, JSON otherwise), `human` or `json`. Default `auto`.
    pub(crate) format: Format,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: Format::Auto }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// For people on a terminal, JSON otherwise
    #[default]
    Auto,
    /// For people
    Human,
    /// One JSON object a line
    Json,
}

/// Starts logging.
///
/// # Errors
/// If the filter is not one.
pub(crate) fn start(config: &LogConfig) -> Result<(), String> {
    let (name, text) = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => ("RUST_LOG", text),
        Ok(_) | Err(_) => ("log.filter", config.filter.clone()),
    };
    // The client of Vault reports every answer that is not a success as an error, also that a secret is not there; that of
    // RabbitMQ every channel that was closed, also where a gateway finds out that it may not make a queue; that of SSH warns
    // of every channel request that it does not know, and PuTTY sends one of its own at each login.
    let quiet = "vaultrs=off,rustify=off,lapin::channel=off,russh::server::encrypted=error";
    let filter = EnvFilter::try_new(format!("{quiet},{text}")).map_err(|e| {
        format!("{name}: {text:?} is not a filter: {e}; use for example warn,dropgate_gateway=debug")
    })?;
    let json = match config.format {
        Format::Auto => !std::io::stderr().is_terminal(),
        Format::Human => false,
        Format::Json => true,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(!json && std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .fmt_fields(Fields)
        .event_format(Lines { json });
    lines.try_init().map_err(|e| e.to_string())
}

/// Starts logging for a command: warnings and errors, unless `RUST_LOG` says otherwise. A command that can't log works all
/// the same.
pub(crate) fn start_quietly(config: &LogConfig) {
    let _ = start(&LogConfig { filter: "warn".to_owned(), format: config.format });
}

/// The text with everything escaped that a terminal or a line reader could act on, and cut at [`LONGEST`] bytes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LONGEST));
    for c in text.chars() {
        let kept = out.len();
        if c == '"' || c == '\'' || c == '\\' || !is_active(c) {
            out.push(c);
        } else {
            out.extend(c.escape_debug());
        }
        if out.len() > LONGEST {
            out.truncate(kept);
            out.push('…');
            break;
        }
    }
    out
}

/// Control characters, line and paragraph separators, bidirectional and invisible formatting.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Fields of an event or a span, escaped: ` key=value key=value`.
#[derive(Debug, Default)]
struct Collected {
    message: String,
    fields: Vec<(&'static str, serde_json::Value)>,
}

impl Collected {
    fn text(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            self.message = escape(text);
        } else {
            self.fields.push((field.name(), escape(text).into()));
        }
    }
}

impl Visit for Collected {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Written through a bound, so that a huge value is never made whole.
        let mut bounded = Bounded(String::new());
        let _ = write!(bounded, "{value:?}");
        self.text(field, &bounded.0);
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), value.into()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), value.into()));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), value.into()));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), value.into()));
    }
}

/// Takes no more than is shown.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0.push_str(s);
        if self.0.len() > LONGEST * 4 { Err(fmt::Error) } else { Ok(()) }
    }
}

fn human(fields: &[(&'static str, serde_json::Value)]) -> String {
    let mut line = String::new();
    for (name, value) in fields {
        let _ = match value {
            serde_json::Value::String(text) if text.is_empty() || text.contains([' ', '=', '"']) => {
                write!(line, " {name}=\"{}\"", text.replace('"', "\\\""))
            }
            serde_json::Value::String(text) => write!(line, " {name}={text}"),
            other => write!(line, " {name}={other}"),
        };
    }
    line
}

/// Fields of spans, kept as JSON members so that both formats can be made of them.
struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(
        &self,
        mut writer: Writer<'w>,
        fields: R,
    ) -> fmt::Result {
        let mut collected = Collected::default();
        fields.record(&mut collected);
        for (name, value) in collected.fields {
            write!(writer, "{}:{value},", serde_json::Value::from(name))?;
        }
        Ok(())
    }
}

struct Lines {
    json: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut said = Collected::default();
        // What the spans around it say comes first.
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let Some(fields) = extensions.get::<FormattedFields<N>>() else { continue };
            let members = format!("{{{}}}", fields.fields.trim_end_matches(','));
            if let Ok(serde_json::Value::Object(members)) = serde_json::from_str(&members) {
                said.fields
                    .extend(members.into_iter().map(|(name, value)| (leaked(span.metadata(), &name), value)));
            }
        }
        event.record(&mut said);
        let metadata = event.metadata();
        let now = dropgate_schemas::time::Timestamp::now();
        if self.json {
            let mut line = serde_json::Map::new();
            line.insert("timestamp".into(), now.to_string().into());
            line.insert("level".into(), metadata.level().as_str().into());
            line.insert("target".into(), metadata.target().into());
            line.insert("message".into(), said.message.into());
            for (name, value) in said.fields {
                line.entry(name).or_insert(value);
            }
            return writeln!(writer, "{}", serde_json::Value::Object(line));
        }
        let colour = match *metadata.level() {
            Level::ERROR => "31",
            Level::WARN => "33",
            Level::INFO => "32",
            Level::DEBUG => "34",
            Level::TRACE => "35",
        };
        let level = metadata.level();
        let target = metadata.target();
        let fields = human(&said.fields);
        if writer.has_ansi_escapes() {
            writeln!(
                writer,
                "\x1b[2m{now}\x1b[0m \x1b[{colour}m{level:>5}\x1b[0m \x1b[2m{target}:\x1b[0m {}{fields}",
                said.message
            )
        } else {
            writeln!(writer, "{now} {level:>5} {target}: {}{fields}", said.message)
        }
    }
}

/// The span's own static name of a field.
fn leaked(metadata: &'static tracing::Metadata<'static>, name: &str) -> &'static str {
    metadata.fields().field(name).map_or("field", |field| field.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    impl<'a> MakeWriter<'a> for Captured {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn logged(json: bool, log: impl FnOnce()) -> String {
        let captured = Captured::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(captured.clone())
            .with_ansi(false)
            .fmt_fields(Fields)
            .event_format(Lines { json })
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_client_can_neither_forge_a_line_nor_flood_the_log() {
        let forged = "x\n2026-01-01 INFO login accepted\r\x1b[2Jé\u{202e}";
        let long = "a".repeat(5000);
        for json in [false, true] {
            let lines = logged(json, || {
                let span = tracing::info_span!("session", client = forged, number = 7);
                let _inside = span.enter();
                tracing::warn!(name = forged, shown = %forged, debugged = ?forged, long, "refused {forged}");
            });
            assert_eq!(lines.lines().count(), 1, "{lines}");
            assert!(!lines.trim_end().chars().any(is_active), "{lines}");
            assert!(lines.len() < 3000, "{}", lines.len());
            assert!(lines.contains("login accepted") && lines.contains("number"), "{lines}");
            if json {
                let value: serde_json::Value = serde_json::from_str(&lines).unwrap();
                assert_eq!(value["level"], "WARN");
                assert_eq!(value["number"], 7);
            }
        }
    }

    #[test]
    fn escaping_keeps_what_people_can_read() {
        assert_eq!(escape("Übergröße 契約 \"it's\" c:\\x"), "Übergröße 契約 \"it's\" c:\\x");
        assert_eq!(escape("a\tb\0\u{7f}\u{2066}"), "a\\tb\\0\\u{7f}\\u{2066}");
        assert!(escape(&"é".repeat(2000)).len() <= LONGEST + 3);
    }
}
