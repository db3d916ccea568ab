//! What it costs to take a file in: copy, hash, stage and seal, without network, SSH and SFTP.
//!
//! `cargo run --release -p dropgate-gateway --example ingest_cost -- DIRECTORY [MIB]` writes a file of so many MiB
//! (default 1024) to a fresh data directory below DIRECTORY, once with WRITEs of 32 KiB and once with 255 KiB, and
//! prints the CPU seconds per GiB of the whole process. That is the floor for an upload on this machine. Each size
//! runs three times; the best run is the one to quote, since the others paid for somebody else's pages.

use dropgate_backends::{Backends, config::BackendsConfig};
use dropgate_gateway::ingest::{
    Budget, Budgets, CONNECTION_BYTES, Content, GatewayBudget, OpenUpload, UploadContext, UploadOptions,
    delete_blobs,
};
use std::{error::Error, path::PathBuf, sync::Arc, time::Instant};

const GATEWAY_BYTES: usize = 256 << 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("usage: ingest_cost DIRECTORY [MIB]")?);
    let mib: u64 = match arguments.next() {
        Some(mib) => mib.to_string_lossy().parse()?,
        None => 1024,
    };
    let data_dir = tempfile::tempdir_in(&directory)?;
    let backends = Backends::open(&BackendsConfig::default(), data_dir.path()).await?;
    for payload in [32 << 10, 255 << 10] {
        for _ in 0..3 {
            run(&backends, mib << 20, payload).await?;
        }
    }
    backends.close().await;
    Ok(())
}

async fn run(backends: &Backends, size: u64, payload: usize) -> Result<(), Box<dyn Error>> {
    let context = UploadContext {
        store: Arc::clone(&backends.blob),
        budgets: Budgets {
            connection: Budget::new(CONNECTION_BYTES),
            gateway: GatewayBudget::new(GATEWAY_BYTES),
        },
        options: Arc::new(UploadOptions::default()),
        detector: Arc::default(),
        quota_left: None,
        epoch: 1,
    };
    let data: Vec<u8> = (0..payload).map(|i| (i % 251) as u8).collect();
    let (began, cpu) = (Instant::now(), cpu_seconds()?);
    let upload = OpenUpload::fresh(context);
    let mut sent = 0;
    while sent < size {
        let now = usize::try_from(size - sent).unwrap_or(usize::MAX).min(data.len());
        upload.write(sent, data.get(..now).unwrap_or(&data)).await?;
        sent += now as u64;
    }
    let received = began.elapsed();
    let finished = upload.finish().await?;
    let (took, cpu) = (began.elapsed(), cpu_seconds()? - cpu);
    let gib = size as f64 / f64::from(1 << 30);
    println!(
        "WRITE {:>3} KiB: {:.2} CPU s/GiB, {:>5.0} MiB/s taken in, {:>5.0} MiB/s until sealed",
        payload >> 10,
        cpu / gib,
        gib * 1024.0 / received.as_secs_f64(),
        gib * 1024.0 / took.as_secs_f64(),
    );
    if let Content::Stored(blob) = finished.content {
        delete_blobs(&*backends.blob, &[blob]).await;
    }
    Ok(())
}

/// User and system time of this process so far.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let ticks_per_second = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may hold spaces; the fields behind it are numbered from 3.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let field = |number: usize| -> Result<f64, Box<dyn Error>> {
        Ok(fields.get(number - 3).ok_or("/proc/self/stat is short")?.parse()?)
    };
    Ok((field(14)? + field(15)?) / ticks_per_second)
}
