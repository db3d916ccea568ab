//! Destinations: a real `sshd`, one that is down for a while, one that refuses, and what operators do about it.

use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::{
    checker::{Ledger, verify},
    harness::{
        Gate, Setup, payload,
        records::text,
        sshd::{HostKeys, Sshd, Subsystem, free_address},
        until::until,
    },
    raw::{Attrs, Overwrite, Request, frame, reply},
};
use std::{net::SocketAddr, path::Path, time::Duration};

const W_C_T: u32 = frame::WRITE | frame::CREAT | frame::TRUNC;

/// A destination of kind `sftp` at `address` and a route that sends everything there.
fn sftp_config(address: SocketAddr, user: &str, key: &Path, root: &Path, more: &str) -> Result<String> {
    let host_key = std::fs::read_to_string(format!("{}.pub", HostKeys::shared()?.ed25519.display()))?;
    Ok(format!(
        "[workers.retry]\nbase_seconds = 1\nlongest_seconds = 2\n{more}\n\
         [[destination]]\nkind = \"sftp\"\nname = \"archive\"\nhost = \"{}\"\nport = {}\nusername = \"{user}\"\n\
         private_key = \"file:{}\"\nhost_keys = [\"{}\"]\npath = \"{}\"\nconnect_seconds = 5\n\
         [[route]]\ndestinations = [\"archive\"]\nkey = \"{{account}}/{{dir}}/{{name}}\"\n",
        address.ip(),
        address.port(),
        key.display(),
        host_key.trim(),
        root.display(),
    ))
}

#[tokio::test]
async fn files_arrive_at_a_real_sshd_whole_verified_and_replaced_by_later_versions() -> Result<()> {
    for subsystem in [
        Subsystem::SftpServer,
        // An old server: no fsync, no posix-rename, no limits.
        Subsystem::Internal("-P fsync,posix-rename,limits".to_owned()),
    ] {
        let sshd = Sshd::start(&subsystem, "").await?;
        let root = sshd.directory("incoming")?;
        let config = sftp_config(sshd.address, &sshd.user, &sshd.key, &root, "")?;
        let gate = Gate::start(Setup::default().config(config)).await?;
        let (_connection, mut raw) = gate.raw("acme").await?;
        raw.call(Request::Mkdir { path: b"/upload/sub" }).await?.ok()?;
        let mut expected = Vec::new();
        for (number, length) in [0_usize, 1, 4096, 70_000, 5_000_000].into_iter().enumerate() {
            let data = payload::bytes(number as u64, length);
            raw.put(&format!("/upload/sub/f{length} ü"), &data).await?;
            expected.push((format!("f{length} ü"), data));
        }
        let rows = gate.settled().await?;
        ensure!(rows.iter().all(|u| u.state == "processed"), "{subsystem:?}: {rows:?}");
        for (name, data) in &expected {
            ensure!(&std::fs::read(root.join("acme/sub").join(name))? == data, "{subsystem:?}: {name}");
        }
        let names: Vec<_> =
            std::fs::read_dir(root.join("acme/sub"))?.map(|e| Ok(e?.file_name())).collect::<Result<_>>()?;
        ensure!(names.len() == expected.len(), "no temporary name is left: {names:?}");

        let newer = payload::bytes(99, 123_456);
        raw.put("/upload/sub/f4096 ü", &newer).await?;
        gate.settled().await?;
        ensure!(std::fs::read(root.join("acme/sub/f4096 ü"))? == newer, "{subsystem:?}");
        let event = gate.event_about("delivery.succeeded", "/upload/sub/f4096 ü", 2).await?;
        let destination = &event[1]["data"]["destination"];
        ensure!(destination["name"] == "archive" && destination["kind"] == "sftp", "{destination}");
        ensure!(text(destination, "uri").starts_with("sftp://127.0.0.1:"), "{destination}");
        ensure!(event[1]["data"]["sha256"] == payload::sha256(&newer), "{event:?}");
        gate.finish().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_destination_that_is_down_gets_everything_when_it_is_up_again() -> Result<()> {
    let mut sshd = Sshd::start(&Subsystem::SftpServer, "").await?;
    let root = sshd.directory("incoming")?;
    let config = sftp_config(
        sshd.address,
        &sshd.user,
        &sshd.key,
        &root,
        "[workers.breaker]\npause_seconds = 1\nlongest_seconds = 2\n",
    )?;
    let gate = Gate::start(Setup::default().config(config)).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    sshd.stop()?;
    for number in 0..5_u64 {
        raw.put(&format!("/upload/f{number}"), &payload::bytes(number, 10_000)).await?;
    }
    // Accepted all the same; told that it will be tried again.
    gate.event_about("delivery.deferred", "/upload/f0", 1).await?;
    ensure!(raw.names("/upload").await?.len() == 5);
    let sshd = sshd.again(&Subsystem::SftpServer, "").await?;
    let rows = gate.settled().await?;
    ensure!(rows.iter().all(|u| u.state == "processed"), "{rows:?}");
    for number in 0..5_u64 {
        ensure!(std::fs::read(root.join(format!("acme/f{number}")))? == payload::bytes(number, 10_000));
    }
    drop(sshd);
    gate.finish().await
}

#[tokio::test]
async fn no_route_denied_and_collision_end_in_failed_with_their_reason() -> Result<()> {
    let sshd = Sshd::start(&Subsystem::SftpServer, "").await?;
    let root = sshd.directory("incoming")?;
    let stranger = dropgate_integration_tests::harness::sshd::keypair(&root.join("stranger"))?;
    let mut config = sftp_config(sshd.address, &sshd.user, &stranger, &root, "permanent_tries = 2\n")?;
    config = config.replace("[[route]]\n", "[[route]]\npath = \"denied/**\"\n");
    let taken = root.join("taken");
    std::fs::create_dir(&taken)?;
    std::fs::write(taken.join("f"), b"somebody else's")?;
    config.push_str(&format!(
        "[[destination]]\nkind = \"directory\"\nname = \"local\"\npath = \"{}\"\n\
         [[route]]\npath = \"local/**\"\ndestinations = [\"local\"]\nkey = \"{{name}}\"\n",
        taken.display()
    ));
    let gate = Gate::start(Setup::default().config(config)).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    for dir in ["denied", "local", "elsewhere"] {
        raw.call(Request::Mkdir { path: format!("/upload/{dir}").as_bytes() }).await?.ok()?;
        raw.put(&format!("/upload/{dir}/f"), b"content").await?;
    }
    let expected = [("denied", "denied"), ("local", "collision"), ("elsewhere", "no_route")];
    for (dir, reason) in expected {
        let path = format!("/upload/{dir}/f");
        let row = gate.upload_in("acme", &path, "failed").await?;
        let shown = row.rest.get("reason").context("a failed upload tells its reason")?;
        ensure!(text(shown, "code") == reason, "{dir}: {shown}");
        let event = gate.event_about("upload.failed", &path, 1).await?;
        ensure!(
            event[0]["data"]["reason"]["code"] == reason
                && !text(&event[0]["data"]["reason"], "sentence").is_empty()
        );
        let listed = raw.list(&format!("/failed/{dir}")).await?;
        let entry = listed.iter().find(|e| e.name == b"f").context("listed in /failed")?;
        ensure!(entry.longname.contains(reason), "{}", entry.longname);
    }
    ensure!(std::fs::read(taken.join("f"))? == b"somebody else's", "a foreign file was overwritten");
    gate.finish().await
}

#[tokio::test]
async fn an_operator_redelivers_what_failed_and_what_was_delivered() -> Result<()> {
    let scratch = dropgate_integration_tests::harness::Scratch::new(
        dropgate_integration_tests::harness::Medium::Memory,
    )?;
    let target = scratch.join("target");
    // A file where the directory should be: the destination refuses for good, until somebody tidies up.
    std::fs::write(&target, b"in the way")?;
    let config = format!(
        "[workers.retry]\nbase_seconds = 1\nlongest_seconds = 1\nbudget_seconds = 3\npermanent_tries = 1\n\
         [[destination]]\nkind = \"directory\"\nname = \"target\"\npath = \"{}\"\n[[route]]\ndestinations = [\"target\"]\nkey = \"{{name}}\"\n",
        target.display()
    );
    let gate = Gate::start(Setup::default().config(config)).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    let data = payload::bytes(1, 100_000);
    raw.put("/upload/f", &data).await?;
    let failed = gate.upload_in("acme", "/upload/f", "failed").await?;
    assert_eq!(raw.names("/failed").await?, ["f"]);

    std::fs::remove_file(&target)?;
    std::fs::create_dir(&target)?;
    gate.cli.run(&["uploads", "redeliver", &failed.upload_id]).await?;
    let row = gate.upload_in("acme", "/upload/f", "processed").await?;
    ensure!(row.upload_id == failed.upload_id && std::fs::read(target.join("f"))? == data);
    assert_eq!(raw.names("/sent").await?, ["f"]);
    assert!(raw.names("/failed").await?.is_empty());

    // Once more, after somebody took the file away.
    std::fs::remove_file(target.join("f"))?;
    gate.cli.run(&["uploads", "redeliver", &failed.upload_id]).await?;
    until(Duration::from_secs(30), "the second redelivery", || async {
        Ok(target.join("f").exists().then_some(()))
    })
    .await?;
    gate.upload_in("acme", "/upload/f", "processed").await?;
    ensure!(std::fs::read(target.join("f"))? == data);
    let acts = gate.audit(&["--upload", &failed.upload_id]).await?;
    let redelivered: Vec<_> = acts.iter().filter(|e| e["action"] == "upload.redeliver").collect();
    ensure!(
        redelivered.len() == 2 && redelivered.iter().all(|e| e["actor"]["kind"] == "operator"),
        "{redelivered:?}"
    );
    let nobody =
        gate.cli.try_run(&["uploads", "redeliver", "0190aaaa-0000-7000-8000-000000000001"], b"").await?;
    ensure!(nobody.code() == 1 && nobody.stderr.contains("0190aaaa"), "{}", nobody.all());
    gate.finish().await
}

#[tokio::test]
async fn a_held_name_that_is_never_renamed_fails_and_can_be_delivered_by_an_operator() -> Result<()> {
    let config = "[workers.sweep]\nevery_seconds = 1\nheld_seconds = 2\n";
    let gate = Gate::start(Setup::default().config(config)).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    let data = payload::bytes(1, 90_000);
    raw.stream("/upload/forgotten.csv.filepart", W_C_T, Attrs::none(), &data).await?;
    let row = gate.upload_in("acme", "/upload/forgotten.csv.filepart", "failed").await?;
    ensure!(row.rest.get("reason").is_some_and(|r| text(r, "code") == "never_renamed"), "{row:?}");
    gate.event_about("upload.failed", "/upload/forgotten.csv.filepart", 1).await?;
    gate.cli.run(&["uploads", "redeliver", &row.upload_id]).await?;
    gate.upload_in("acme", "/upload/forgotten.csv.filepart", "processed").await?;
    ensure!(std::fs::read(gate.delivered("acme").join("forgotten.csv.filepart"))? == data);
    gate.finish().await
}

#[tokio::test]
async fn an_undelivered_predecessor_is_cancelled_by_the_next_version() -> Result<()> {
    // Nobody listens there: version 1 waits for its next try when version 2 comes.
    let nowhere = free_address()?;
    let scratch = dropgate_integration_tests::harness::Scratch::new(
        dropgate_integration_tests::harness::Medium::Memory,
    )?;
    let key = dropgate_integration_tests::harness::sshd::keypair(&scratch.join("key"))?;
    let config = sftp_config(nowhere, "nobody", &key, scratch.path(), "")?
        .replace("base_seconds = 1", "base_seconds = 3600")
        .replace("longest_seconds = 2", "longest_seconds = 3600");
    let gate = Gate::start(Setup::default().config(config)).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    raw.put("/upload/f", b"first").await?;
    gate.event_about("delivery.deferred", "/upload/f", 1).await?;
    let first = gate.upload("acme", "/upload/f").await?;
    // While it waits it is there: EXCL and plain RENAME (version 3) fail, WinSCP's small overwrite takes its second road.
    raw.stream("/upload/g.filepart", W_C_T, Attrs::none(), b"other").await?;
    let over = raw.call(Request::Rename { from: b"/upload/g.filepart", to: b"/upload/f" }).await?;
    over.refused(reply::FAILURE)?;
    raw.call(Request::Remove { path: b"/upload/g.filepart" }).await?.ok()?;
    let (_, existed) = raw.winscp_small("/upload/small", b"one").await?;
    let (_, again) = raw.winscp_small("/upload/small", b"two").await?;
    ensure!(!existed && again, "EXCL: {existed} {again}");
    raw.winscp_large("/upload/f", b"second", Overwrite::RemoveThenRename).await?;
    until(Duration::from_secs(20), "the first version to be superseded", || async {
        let rows = gate.uploads().await?;
        Ok(rows.iter().any(|u| u.upload_id == first.upload_id && u.state == "superseded").then_some(()))
    })
    .await?;
    let superseded = gate.event_about("upload.superseded", "/upload/f", 1).await?;
    ensure!(superseded[0]["uploadid"] == first.upload_id.as_str());
    gate.finish().await
}

#[tokio::test]
async fn content_types_are_found_and_recorded() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let ledger = Ledger::in_memory();
    let (_connection, mut raw) = gate.raw("acme").await?;
    let samples: [(&str, &[u8], &str); 8] = [
        ("orders.edi", b"UNA:+.? 'UNB+UNOC:3+SENDER+RECEIVER+200101:1200+1'UNH+1+ORDERS:D:96A:UN'", "edifact"),
        ("850.x12", b"ISA*00*          *00*          *ZZ*SENDER         *ZZ*RECEIVER       *200101*1200*U*00401*000000001*0*P*>~GS*PO*S*R*20200101*1200*1*X*004010~", "x12"),
        ("mt103.fin", b"{1:F01BANKBEBBAXXX0000000000}{2:I103BANKDEFFXXXXN}{4:\r\n:20:REF\r\n:32A:200101EUR100,00\r\n-}", "swift"),
        ("adt.hl7", b"MSH|^~\\&|APP|FAC|APP2|FAC2|20200101120000||ADT^A01|1|P|2.5\rPID|1||1", "hl7"),
        ("data.csv", b"id;name;amount\n1;a;2.5\n2;b;3.5\n3;c;4.5\n", "csv"),
        ("data.json", b"{\"a\": [1, 2, 3], \"b\": {\"c\": null}}", "json"),
        ("data.xml", b"<?xml version=\"1.0\"?>\n<root><a>1</a></root>", "xml"),
        ("doc.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n", "pdf"),
    ];
    for (name, data, _) in samples {
        let path = format!("/upload/{name}");
        let line = ledger.begin("acme", &path, data)?;
        raw.put(&path, data).await?;
        ledger.acknowledge(line)?;
    }
    verify(&gate, &ledger).await?;
    for (name, _, label) in samples {
        let row = gate.upload("acme", &format!("/upload/{name}")).await?;
        let found = row.content_type.context("a content type")?.to_string().to_lowercase();
        ensure!(found.contains(label), "{name}: {found}");
        let event = gate.event_about("upload.received", &format!("/upload/{name}"), 1).await?;
        ensure!(
            !text(&event[0]["data"]["content_type"], "found_by").is_empty(),
            "{name}: how it was found is not told"
        );
    }
    gate.finish().await
}
