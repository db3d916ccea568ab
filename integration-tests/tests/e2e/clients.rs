//! Clients beside OpenSSH's, as partners use them: what they report must be what happened.

use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::{
    checker::{Ledger, verify},
    harness::{Gate, Setup, clients::Clients, payload, records::UploadRow},
};

/// Newest last, every version of a path.
async fn versions(gate: &Gate, path: &str) -> Result<Vec<UploadRow>> {
    let mut rows: Vec<_> =
        gate.uploads().await?.into_iter().filter(|u| u.path == path && u.is_accepted()).collect();
    rows.sort_by_key(|u| u.version);
    Ok(rows)
}

/// Local files: their names and contents, the same for each client.
fn files(clients: &Clients) -> Result<Vec<(&'static str, Vec<u8>)>> {
    std::fs::create_dir(clients.local("out"))?;
    std::fs::create_dir_all(clients.local("out/sub/deep"))?;
    let mut all = Vec::new();
    for (name, length) in
        [("empty", 0), ("small", 6), ("sub/two words – é.txt", 70_000), ("sub/deep/large", 3_000_000)]
    {
        let data = payload::bytes(length as u64, length);
        std::fs::write(clients.local("out").join(name), &data)?;
        all.push((name, data));
    }
    Ok(all)
}

#[tokio::test]
async fn lftp_mirrors_resumes_and_shows_the_text_of_a_refusal() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let clients = Clients::new(&gate, "acme")?;
    for _run in 0..2 {
        let mut lines = Vec::new();
        let out = clients.local("out");
        if out.exists() {
            std::fs::remove_dir_all(out)?;
        }
        for (name, data) in files(&clients)? {
            lines.push(ledger.begin("acme", &format!("/upload/out/{name}"), &data)?);
        }
        clients.lftp("mirror -R --parallel=4 out /upload/out\n").await?;
        lines.into_iter().try_for_each(|line| ledger.acknowledge(line))?;
        gate.settled().await?;
    }
    // All is there already: nothing happens, and nothing is reported to have gone wrong.
    clients.lftp("reput out/sub/deep/large -o /upload/out/sub/deep/large\n").await?;
    ensure!(versions(&gate, "/upload/out/sub/deep/large").await?.len() == 2);

    let data = payload::bytes(9, 70_000);
    std::fs::write(clients.local("temped"), &data)?;
    let line = ledger.begin("acme", "/upload/temped", &data)?;
    clients.lftp("set xfer:use-temp-file yes\nput temped -o /upload/temped\n").await?;
    ledger.acknowledge(line)?;
    let row = gate.upload("acme", "/upload/temped").await?;
    ensure!(
        row.rest["evidence"] == "renamed-from-temp" || row.rest["evidence"] == "renamed_from_temp",
        "{row:?}"
    );

    let refused = clients.try_lftp("get /upload/temped -o got\n").await?;
    ensure!(refused.code() != 0 && refused.all().contains("only takes uploads"), "{}", refused.all());
    let refused = clients.try_lftp("rm /upload/temped\n").await?;
    ensure!(refused.code() != 0 && refused.all().contains("can't be removed"), "{}", refused.all());
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn curl_uploads_overwrites_and_leaves_a_complete_file_alone() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let clients = Clients::new(&gate, "acme")?;
    for (name, data) in files(&clients)? {
        let remote = format!("/upload/{}", name.rsplit('/').next().context("a name")?);
        let local = clients.local("out").join(name).display().to_string();
        for _again in 0..2 {
            let line = ledger.begin("acme", &remote, &data)?;
            clients
                .curl(
                    &["-T", &local],
                    &remote.replace(' ', "%20").replace('–', "%E2%80%93").replace('é', "%C3%A9"),
                )
                .await?;
            ledger.acknowledge(line)?;
        }
    }
    gate.settled().await?;
    // It opens to append, finds that all is there, and writes nothing.
    let local = clients.local("out/small").display().to_string();
    clients.curl(&["-C", "-", "-T", &local], "/upload/small").await?;
    ensure!(versions(&gate, "/upload/small").await?.len() == 2, "a resume of nothing made a version");
    let refused = clients.try_curl(&[], "/sent/small").await?;
    ensure!(refused.code() == 9 && refused.stdout.is_empty(), "{}", refused.all());
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn rclone_copies_with_temp_names_times_and_checks() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let clients = Clients::new(&gate, "acme")?;
    let all = files(&clients)?;
    for options in [&["copy"][..], &["copy", "--checksum"], &["copy", "--inplace"]] {
        let mut lines = Vec::new();
        for (name, data) in &all {
            lines.push(ledger.begin("acme", &format!("/upload/out/{name}"), data)?);
        }
        clients
            .rclone(&[options, &["--no-traverse", "--ignore-times", "out", "gate:upload/out"]].concat())
            .await?;
        lines.into_iter().try_for_each(|line| ledger.acknowledge(line))?;
        gate.settled().await?;
    }
    // One event for each: the temp name is not a file of its own.
    let received = gate.events()?.iter().filter(|e| e["type"] == "dropgate.upload.received.v1").count();
    ensure!(received == 3 * all.len(), "{received} received events");
    let checked = clients.rclone(&["check", "--size-only", "out", "gate:sent/out"]).await?;
    ensure!(checked.all().contains("0 differences"), "{}", checked.all());
    let refused = clients.try_rclone(&["cat", "gate:sent/out/small"]).await?;
    ensure!(refused.code() != 0 && refused.stdout.is_empty(), "{}", refused.all());
    verify(&gate, &ledger).await?;
    gate.finish().await
}

#[tokio::test]
async fn paramiko_gets_the_size_it_checks_and_texts_it_can_show() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let clients = Clients::new(&gate, "acme")?;
    let mut lines = Vec::new();
    for (name, data) in files(&clients)? {
        lines.push(ledger.begin("acme", &format!("/upload/out/{name}"), &data)?);
    }
    clients
        .paramiko(
            "for directory in ['out', 'out/sub', 'out/sub/deep']: sftp.mkdir('/upload/' + directory)\n\
             for name in ['empty', 'small', 'sub/two words – é.txt', 'sub/deep/large']:\n\
             \x20   sftp.put(local + '/out/' + name, '/upload/out/' + name, confirm=True)\n",
        )
        .await?;
    lines.into_iter().try_for_each(|line| ledger.acknowledge(line))?;
    let line = ledger.begin("acme", "/upload/final", b"from memory")?;
    clients
        .paramiko(
            "sftp.putfo(io.BytesIO(b'from memory'), '/upload/final.filepart')\n\
             sftp.posix_rename('/upload/final.filepart', '/upload/final')\n\
             sftp.utime('/upload/final', (1700000000, 1700000001))\n\
             about = sftp.stat('/upload/final')\n\
             assert (about.st_size, about.st_mtime) == (11, 1700000001), about\n",
        )
        .await?;
    ledger.acknowledge(line)?;
    gate.settled().await?;
    clients
        .paramiko(
            "def refused(text, ask, *args):\n\
             \x20   try: ask(*args)\n\
             \x20   except OSError as e: assert text in str(e), e\n\
             \x20   else: raise AssertionError(text)\n\
             names = {entry.filename: entry.st_size for entry in sftp.listdir_attr('/sent')}\n\
             assert names['final'] == 11 and 'out' in names, names\n\
             # r+ without a WRITE and its CLOSE: nothing happens.\n\
             sftp.open('/upload/final', 'r+').close()\n\
             assert sftp.stat('/upload/final').st_size == 11\n\
             refused('upload it whole', sftp.open, '/upload/final', 'a')\n\
             refused('only takes uploads', sftp.open, '/sent/final', 'r')\n\
             refused('can\\'t be removed', sftp.remove, '/upload/final')\n\
             refused('make it first', sftp.open, '/upload/no/such', 'w')\n\
             refused('exists already', sftp.mkdir, '/upload/out')\n\
             refused('backslash', sftp.open, '/upload/a\\\\b', 'w')\n",
        )
        .await?;
    ensure!(versions(&gate, "/upload/final").await?.len() == 1);
    verify(&gate, &ledger).await?;
    gate.finish().await
}
