use crate::client::{APPEND, CREAT, EXCL, Gate, Got, TRUNC, WRITE, string};
use dropgate_gateway::sftp::attrs::Attrs;
use dropgate_schemas::{
    digest::Sha256,
    time::Timestamp,
    upload::{Grade, Upload, UploadState},
};
use std::time::Duration;

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[tokio::test]
async fn close_is_the_acceptance_with_proof() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    for size in [0, 1, 4096, 65_536, 65_537, 3_000_000] {
        let content = bytes(size);
        let path = format!("/upload/{size}.bin");
        let text = client.put(&path, &content).await.ok();
        let upload = gate.upload_at(&path, UploadState::Committed).await;
        assert_eq!(upload.size, Some(size as u64));
        assert_eq!(upload.sha256, Some(Sha256::of(&content)));
        assert_eq!(gate.content(&upload).await, content);
        assert!(text.contains(&format!("sha256={}", Sha256::of(&content))), "{text}");
        assert!(text.contains(&upload.receipt_id.unwrap().to_string()), "{text}");
        assert_eq!(client.stat(&path).await.size(), size as u64);
    }
}

#[tokio::test]
async fn writes_out_of_order_are_put_in_order_and_holes_are_refused() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    let content = bytes(100_000);
    let handle = client.open("/upload/a", WRITE | CREAT | TRUNC).await.handle();
    for at in [50_000, 0, 75_000, 25_000] {
        client.write(&handle, at as u64, &content[at..at + 25_000]).await.ok();
    }
    client.close(&handle).await.ok();
    let upload = gate.upload_at("/upload/a", UploadState::Committed).await;
    assert_eq!(gate.content(&upload).await, content);

    let handle = client.open("/upload/hole", WRITE | CREAT | TRUNC).await.handle();
    client.write(&handle, 0, &content[..1000]).await.ok();
    client.write(&handle, 2000, &content[..1000]).await.ok();
    let text = client.close(&handle).await.refused(4);
    assert!(text.contains("offset 1000"), "{text}");
    assert_eq!(
        gate.uploads()
            .await
            .iter()
            .filter(|u| u.path.as_str() == "/upload/hole" && u.state.is_accepted())
            .count(),
        0
    );
}

#[tokio::test]
async fn winscp_large_file_in_one_burst() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    let content = bytes(200_000);
    let id = client.send_open("/upload/x.csv.filepart", WRITE | CREAT | TRUNC, Some(200_000)).await;
    let handle = client.reply(id).await.handle();
    // Writes, CLOSE, RENAME and SETSTAT are sent without waiting for any reply.
    let mut writes = Vec::new();
    for (i, piece) in content.chunks(30_000).enumerate() {
        writes.push(client.send_write(&handle, i as u64 * 30_000, piece).await);
    }
    let close = client.send(4, &string(&handle)).await;
    let rename =
        client.send(18, &[string(b"/upload/x.csv.filepart"), string(b"/upload/x.csv")].concat()).await;
    let mut fields = string(b"/upload/x.csv");
    Attrs { times: Some((7, 1_234_567)), ..Attrs::default() }.encode(&mut fields);
    let setstat = client.send(9, &fields).await;
    for write in writes {
        client.reply(write).await.ok();
    }
    assert!(client.reply(close).await.ok().contains("held"));
    assert!(client.reply(rename).await.ok().contains("sha256="));
    client.reply(setstat).await.ok();
    let upload = gate.upload_at("/upload/x.csv", UploadState::Committed).await;
    assert_eq!(gate.uploads().await.len(), 1, "one upload, one record");
    assert_eq!(upload.evidence, Some(Grade::RenamedFromTemp));
    assert_eq!(upload.attributes.mtime, Some(1_234_567));
    assert_eq!(upload.opened_as.as_str(), "/upload/x.csv.filepart");
    assert_eq!(gate.content(&upload).await, content);
}

#[tokio::test]
async fn winscp_overwrites_by_remove_and_rename() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    client.put("/upload/x", b"old").await.ok();
    let old = gate.upload_at("/upload/x", UploadState::Committed).await;
    gate.settle(old.clone(), UploadState::Processed).await;
    client.put("/upload/x.filepart", b"new").await.ok();
    client.remove("/upload/x").await.ok();
    assert_eq!(
        gate.upload_at("/upload/x", UploadState::Processed).await.deleted_at,
        None,
        "nothing is destroyed"
    );
    client.rename("/upload/x.filepart", "/upload/x").await.ok();
    let new = gate.upload_at("/upload/x", UploadState::Committed).await;
    assert_eq!(new.version, 2);
    assert_eq!(new.supersedes, Some(old.upload_id));
    // Without a held upload the same REMOVE is refused.
    assert!(client.remove("/upload/x").await.refused(3).contains("accepted"));
}

#[tokio::test]
async fn plain_rename_onto_an_accepted_name_is_refused_and_posix_rename_replaces() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    client.put("/upload/x", b"old").await.ok();
    client.put("/upload/x.0123abcd.partial", b"new").await.ok();
    client.rename("/upload/x.0123abcd.partial", "/upload/x").await.refused(4);
    let fields = [string(b"/upload/x.0123abcd.partial"), string(b"/upload/x")].concat();
    client.extended("posix-rename@openssh.com", &fields).await.ok();
    let newest = gate
        .uploads()
        .await
        .into_iter()
        .filter(|u| u.path.as_str() == "/upload/x")
        .max_by_key(|u| u.version)
        .unwrap();
    assert_eq!((newest.version, newest.state), (2, UploadState::Committed));
}

#[tokio::test]
async fn declared_sizes_are_checked() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    let id = client.send_open("/upload/short", WRITE | CREAT | TRUNC, Some(10)).await;
    let handle = client.reply(id).await.handle();
    client.write(&handle, 0, b"12345").await.ok();
    client.close(&handle).await.refused(4);
    gate.upload_at("/upload/short", UploadState::Partial).await;
    // WinSCP cancels this way: the CLOSE is fine, the RENAME is not.
    let id = client.send_open("/upload/c.filepart", WRITE | CREAT | TRUNC, Some(10)).await;
    let handle = client.reply(id).await.handle();
    client.write(&handle, 0, b"12345").await.ok();
    client.close(&handle).await.ok();
    assert!(client.rename("/upload/c.filepart", "/upload/c").await.refused(4).contains("not complete"));
    let id = client.send_open("/upload/good", WRITE | CREAT | TRUNC, Some(5)).await;
    let handle = client.reply(id).await.handle();
    client.write(&handle, 0, b"12345").await.ok();
    client.close(&handle).await.ok();
    assert_eq!(
        gate.upload_at("/upload/good", UploadState::Committed).await.evidence,
        Some(Grade::DeclaredSize)
    );
    // lftp and scp set the size before CLOSE.
    let handle = client.open("/upload/lftp", WRITE | CREAT | TRUNC).await.handle();
    client.write(&handle, 0, b"12345").await.ok();
    let mut fields = string(&handle);
    Attrs { size: Some(5), times: Some((1, 2)), ..Attrs::default() }.encode(&mut fields);
    client.ask(10, &fields).await.ok();
    client.close(&handle).await.ok();
    let upload = gate.upload_at("/upload/lftp", UploadState::Committed).await;
    assert_eq!((upload.evidence, upload.attributes.mtime), (Some(Grade::FsetstatSize), Some(2)));
}

#[tokio::test]
async fn open_flags_mean_what_the_contract_says() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    assert!(client.open("/upload/a", 1).await.refused(3).contains("only takes uploads"));
    client.open("/upload/a", WRITE).await.refused(2);
    let handle = client.open("/upload/a", WRITE | CREAT | EXCL).await.handle();
    assert!(
        client
            .ask(5, &[string(&handle), vec![0; 12]].concat())
            .await
            .refused(3)
            .contains("only takes uploads")
    );
    client.write(&handle, 0, b"x").await.ok();
    client.close(&handle).await.ok();
    client.open("/upload/a", WRITE | CREAT | EXCL).await.refused(4);
    client.open("/sent/a", WRITE | CREAT).await.refused(3);
    client.open("/a", WRITE | CREAT).await.refused(3);
    client.open("/upload", WRITE | CREAT).await.refused(4);
    client.open("/upload/no/such", WRITE | CREAT).await.refused(2);
    // READ|WRITE is taken as write-only.
    let handle = client.open("/upload/rw", 1 | WRITE | CREAT | TRUNC).await.handle();
    client.close(&handle).await.ok();
}

#[tokio::test]
async fn an_accepted_name_is_replaced_whole_or_not_at_all() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    client.put("/upload/a", b"12345").await.ok();
    // A client that thinks it can resume writes behind what STAT told.
    let handle = client.open("/upload/a", WRITE | CREAT).await.handle();
    assert!(client.write(&handle, 5, b"678").await.refused(4).contains("accepted already"));
    client.close(&handle).await.refused(4);
    client.disconnect().await;
    assert_eq!(gate.content(&gate.upload_at("/upload/a", UploadState::Committed).await).await, b"12345");
    let mut client = gate.client().await;
    // scp opens without TRUNC and writes from 0.
    let handle = client.open("/upload/a", WRITE | CREAT).await.handle();
    client.write(&handle, 0, b"abc").await.ok();
    client.close(&handle).await.ok();
    let newest = gate.uploads().await.into_iter().max_by_key(|u| u.version).unwrap();
    assert_eq!((newest.state, newest.size), (UploadState::Committed, Some(3)));
}

#[tokio::test]
async fn bytes_meant_for_the_end_of_an_unfinished_file_never_become_its_beginning() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    let handle = client.open("/upload/a", WRITE | CREAT | TRUNC).await.handle();
    client.write(&handle, 0, b"12345").await.ok();
    client.extended("fsync@openssh.com", &string(&handle)).await.ok();
    client.disconnect().await;
    let mut client = gate.client().await;
    // A client that leaves it to the server where the end is.
    let handle = client.open("/upload/a", WRITE | CREAT | APPEND).await.handle();
    assert!(client.write(&handle, 0, b"678").await.refused(4).contains("go on there"));
    client.close(&handle).await.refused(4);
    gate.upload_at("/upload/a", UploadState::Partial).await;
    let handle = client.open("/upload/a", WRITE | CREAT | APPEND).await.handle();
    client.write(&handle, 5, b"678").await.ok();
    client.close(&handle).await.ok();
    assert_eq!(gate.content(&gate.upload_at("/upload/a", UploadState::Committed).await).await, b"12345678");
    // The same of a file that is complete under its temp name.
    client.put("/upload/b.filepart", b"12345").await.ok();
    let handle = client.open("/upload/b.filepart", WRITE | CREAT | APPEND).await.handle();
    client.write(&handle, 0, b"678").await.refused(4);
    client.close(&handle).await.ok();
    assert_eq!(gate.content(&gate.upload_at("/upload/b.filepart", UploadState::Held).await).await, b"12345");
}

#[tokio::test]
async fn a_repeat_whose_answer_was_lost_is_answered_with_the_first_receipt() {
    let gate = Gate::start().await;
    let mut first = gate.client().await;
    let handle = first.open("/upload/a", WRITE | CREAT | TRUNC).await.handle();
    first.write(&handle, 0, b"twin").await.ok();
    let receipt = first.close(&handle).await.ok();
    let upload = gate.upload_at("/upload/a", UploadState::Committed).await;
    // As if the OK had never left: no mark is written.
    drop(first);
    gate.ingest.live.channel_ended(upload.client.session);
    let mut second = gate.client().await;
    let again = second.put("/upload/a", b"twin").await.ok();
    assert_eq!(again, receipt);
    assert_eq!(gate.uploads().await.iter().filter(|u| u.state.is_accepted()).count(), 1);
    // Another content is a new version.
    second.put("/upload/a", b"else").await.ok();
    assert_eq!(gate.uploads().await.iter().filter(|u| u.state.is_accepted()).count(), 2);
}

#[tokio::test]
async fn an_answered_upload_that_is_sent_again_is_a_new_version() {
    let gate = Gate::start().await;
    let mut first = gate.client().await;
    first.put("/upload/a", b"nightly").await.ok();
    first.disconnect().await;
    let mut second = gate.client().await;
    second.put("/upload/a", b"nightly").await.ok();
    assert_eq!(gate.uploads().await.iter().filter(|u| u.state.is_accepted()).count(), 2);
}

#[tokio::test]
async fn suppressed_duplicates_and_minimum_grades() {
    let gate = Gate::with(|a| a.on_duplicate = dropgate_schemas::account::OnDuplicate::Suppress).await;
    let mut client = gate.client().await;
    let first = client.put("/upload/a", b"same").await.ok();
    let upload = gate.upload_at("/upload/a", UploadState::Committed).await;
    gate.settle(upload, UploadState::Processed).await;
    assert_eq!(client.put("/upload/a", b"same").await.ok(), first);
    assert_eq!(gate.uploads().await.iter().filter(|u| u.state.is_accepted()).count(), 1);

    let gate = Gate::with(|a| a.minimum_grade = Grade::RenamedFromTemp).await;
    let mut client = gate.client().await;
    assert!(client.put("/upload/a", b"x").await.refused(3).contains("renamed"));
    client.put("/upload/b.filepart", b"x").await.ok();
    client.rename("/upload/b.filepart", "/upload/b").await.ok();
    gate.upload_at("/upload/b", UploadState::Committed).await;
}

#[tokio::test]
async fn an_accepted_file_stays_if_a_client_opens_it_and_writes_nothing() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    client.put("/upload/a", b"12345").await.ok();
    let accepted = gate.upload_at("/upload/a", UploadState::Committed).await;
    let upload = gate.settle(accepted, UploadState::Delivering).await;
    gate.settle(upload, UploadState::Processed).await;
    let versions = |uploads: Vec<dropgate_schemas::upload::Upload>| {
        uploads.iter().filter(|u| u.state.is_accepted()).count()
    };
    // curl -C - of a complete file, and touch through sshfs. STAT still shows the file, so it is there to be kept.
    for flags in [WRITE, WRITE | CREAT] {
        let handle = client.open("/upload/a", flags).await.handle();
        assert_eq!(client.ask(8, &string(&handle)).await.size(), 5);
        assert!(client.close(&handle).await.ok().contains("stays"));
    }
    // lftp's reput of a complete file says its size.
    let handle = client.open("/upload/a", WRITE | CREAT).await.handle();
    set_size(&mut client, &handle, 5).await.ok();
    client.close(&handle).await.ok();
    assert_eq!(versions(gate.uploads().await), 1);
    // Appending to it would need its bytes back, on whichever side of the delivery it is. curl -C - of a complete file
    // opens to append, too, and writes nothing.
    for offset in [0, 5, 7] {
        let handle = client.open("/upload/a", WRITE | APPEND).await.handle();
        assert!(client.write(&handle, offset, b"678").await.refused(4).contains("accepted already"));
        assert!(client.close(&handle).await.refused(4).contains("accepted already"));
    }
    let handle = client.open("/upload/a", WRITE | APPEND).await.handle();
    assert!(client.close(&handle).await.ok().contains("stays"));
    let handle = client.open("/upload/a", WRITE | CREAT).await.handle();
    assert!(client.write(&handle, 5, b"678").await.refused(4).contains("accepted already"));
    assert!(client.close(&handle).await.refused(4).contains("accepted already"));
    let handle = client.open("/upload/a", WRITE | CREAT).await.handle();
    set_size(&mut client, &handle, 3).await.ok();
    client.close(&handle).await.refused(4);
    assert_eq!(versions(gate.uploads().await), 1);
    // An empty file in its place must be asked for: scp by SIZE 0, all others by TRUNC.
    let handle = client.open("/upload/a", WRITE | CREAT).await.handle();
    set_size(&mut client, &handle, 0).await.ok();
    client.close(&handle).await.ok();
    assert_eq!(versions(gate.uploads().await), 2);
    client.put("/upload/a", b"").await.ok();
    assert_eq!(versions(gate.uploads().await), 3);
}

#[tokio::test]
async fn a_file_delivered_long_ago_stays_if_a_client_opens_it_to_change_it_and_writes_nothing() {
    let gate = Gate::start().await;
    gate.client().await.put("/upload/a", b"12345").await.ok();
    let accepted = gate.upload_at("/upload/a", UploadState::Committed).await;
    let delivered = gate.settle(accepted, UploadState::Delivering).await;
    let hours_ago = Timestamp::now().minus(Duration::from_secs(7200));
    gate.record(Upload { state: UploadState::Processed, settled_at: Some(hours_ago), ..delivered }).await;
    // Another session, an hour after STAT showed it here the last time: r+ of paramiko, touch.
    let mut client = gate.client().await;
    client.stat("/upload/a").await.refused(2);
    let handle = client.open("/upload/a", WRITE).await.handle();
    assert!(client.close(&handle).await.ok().contains("stays"));
    let accepted = gate.uploads().await.into_iter().filter(|upload| upload.state.is_accepted());
    assert_eq!(
        accepted.map(|upload| (upload.version, upload.state)).collect::<Vec<_>>(),
        [(1, UploadState::Processed)]
    );
    // Who makes a file there means a new one.
    client.put("/upload/a", b"").await.ok();
    assert_eq!(gate.upload_at("/upload/a", UploadState::Committed).await.version, 3);
}

#[tokio::test]
async fn a_failed_file_that_nothing_is_written_to_is_not_taken_for_sent() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    client.put("/upload/a", b"12345").await.ok();
    let upload =
        gate.settle(gate.upload_at("/upload/a", UploadState::Committed).await, UploadState::Delivering);
    gate.settle(upload.await, UploadState::Failed).await;
    let handle = client.open("/upload/a", WRITE | CREAT).await.handle();
    assert!(client.close(&handle).await.refused(4).contains("upload it whole"));
}

async fn set_size(client: &mut crate::client::Client, handle: &[u8], size: u64) -> Got {
    let mut fields = string(handle);
    Attrs { size: Some(size), ..Attrs::default() }.encode(&mut fields);
    client.ask(10, &fields).await
}

#[tokio::test]
async fn the_mode_in_an_open_is_for_new_files() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    for (mode, content) in [(0o100_640, "first"), (0, "second")] {
        let mut fields = string(b"/upload/a");
        fields.extend((WRITE | CREAT).to_be_bytes());
        Attrs { permissions: Some(mode), ..Attrs::default() }.encode(&mut fields);
        let handle = client.ask(3, &fields).await.handle();
        client.write(&handle, 0, content.as_bytes()).await.ok();
        client.close(&handle).await.ok();
        match client.stat("/upload/a").await {
            Got::Attrs { mode, size, .. } => assert_eq!((mode, size), (0o100_640, content.len() as u64)),
            other => panic!("{other:?}"),
        }
    }
}
