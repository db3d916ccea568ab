//! Where the figures come from.

use anyhow::Result;
use std::process::Command;

/// One line a fact.
pub(crate) fn describe() -> Result<Vec<(String, String)>> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = field(&cpu, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism()?.get();
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kibibytes: u64 =
        field(&memory, "MemTotal").and_then(|m| m.trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0);
    let dropgate = dropgate_integration_tests::harness::binary::dropgate()?;
    Ok(vec![
        ("Date".to_owned(), first_line("date", &["-u", "+%Y-%m-%d"])),
        ("Processor".to_owned(), format!("{model}, {cores} cores")),
        ("Memory".to_owned(), format!("{:.1} GiB", kibibytes as f64 / f64::from(1 << 20))),
        ("System".to_owned(), format!("{} {}", first_line("uname", &["-sr"]), system())),
        ("Dropgate".to_owned(), first_line(&dropgate.display().to_string(), &["--version"])),
        ("OpenSSH".to_owned(), first_line("ssh", &["-V"])),
        ("Compiler".to_owned(), first_line("rustc", &["--version"])),
    ])
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn system() -> String {
    std::fs::read_to_string("/etc/os-release")
        .ok()
        .and_then(|text| {
            text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=").map(|n| n.trim_matches('"').to_owned()))
        })
        .unwrap_or_default()
}

fn first_line(program: &str, args: &[&str]) -> String {
    Command::new(program)
        .args(args)
        .output()
        .map(|out| {
            let text = if out.stdout.is_empty() { out.stderr } else { out.stdout };
            String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
        })
        .unwrap_or_else(|e| format!("unknown ({e})"))
}
