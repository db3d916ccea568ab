use crate::client::{CREAT, Gate, Got, TRUNC, WRITE, string};
use dropgate_gateway::sftp::attrs::Attrs;
use dropgate_schemas::upload::UploadState;

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 13 + i / 253) as u8).collect()
}

/// Both while the content is small enough to ride with the record and when it is in the blob store.
const SIZES: [usize; 2] = [20_000, 2_000_000];

async fn interrupted(gate: &Gate, path: &str, content: &[u8], flags: u32) {
    let mut client = gate.client().await;
    let handle = client.open(path, flags).await.handle();
    for (i, piece) in content.chunks(10_000).enumerate() {
        client.write(&handle, i as u64 * 10_000, piece).await.ok();
    }
    client.disconnect().await;
}

#[tokio::test]
async fn a_lost_connection_never_commits_and_can_be_resumed() {
    for size in SIZES {
        let gate = Gate::start().await;
        let content = bytes(size);
        let half = size / 2;
        interrupted(&gate, "/upload/a", &content[..half], WRITE | CREAT | TRUNC).await;
        let partial = gate.upload_at("/upload/a", UploadState::Partial).await;
        let mut client = gate.client().await;
        let durable = client.stat("/upload/a").await.size();
        assert_eq!(durable, half as u64, "all that arrived was kept");
        let handle = client.open("/upload/a", WRITE | CREAT).await.handle();
        let mut at = durable as usize;
        while at < size {
            let end = (at + 30_000).min(size);
            client.write(&handle, at as u64, &content[at..end]).await.ok();
            at = end;
        }
        client.close(&handle).await.ok();
        let upload = gate.upload_at("/upload/a", UploadState::Committed).await;
        assert_eq!(upload.upload_id, partial.upload_id, "one upload, one record");
        assert_eq!(gate.content(&upload).await, content);
        assert_eq!(upload.sha256, Some(dropgate_schemas::digest::Sha256::of(&content)));
    }
}

#[tokio::test]
async fn an_interrupted_upload_may_start_again_from_0_or_elsewhere_not_at_all() {
    for size in SIZES {
        let gate = Gate::start().await;
        interrupted(&gate, "/upload/a", &bytes(size), WRITE | CREAT | TRUNC).await;
        let mut client = gate.client().await;
        let handle = client.open("/upload/a", WRITE | CREAT).await.handle();
        client.write(&handle, 0, b"fresh").await.ok();
        client.close(&handle).await.ok();
        let upload = gate.upload_at("/upload/a", UploadState::Committed).await;
        assert_eq!(gate.content(&upload).await, b"fresh");

        interrupted(&gate, "/upload/b", &bytes(size), WRITE | CREAT | TRUNC).await;
        let handle = client.open("/upload/b", WRITE | CREAT).await.handle();
        let wrong = client.send_write(&handle, 77, b"elsewhere").await;
        let _ = client.reply(wrong).await;
        let text = client.close(&handle).await.refused(4);
        assert!(text.contains("start at 0") || text.contains("never arrived"), "{text}");
        assert!(
            !gate.uploads().await.iter().any(|u| u.path.as_str() == "/upload/b" && u.state.is_accepted())
        );
    }
}

#[tokio::test]
async fn a_close_that_adds_nothing_to_an_interrupted_upload_does_not_complete_it() {
    let gate = Gate::start().await;
    interrupted(&gate, "/upload/a", &bytes(30_000), WRITE | CREAT | TRUNC).await;
    let mut client = gate.client().await;
    let handle = client.open("/upload/a", WRITE | CREAT).await.handle();
    client.close(&handle).await.refused(4);
    gate.upload_at("/upload/a", UploadState::Partial).await;
    // lftp sends SIZE before CLOSE: if all bytes had arrived, that completes it.
    for (size, complete) in [(30_001_u64, false), (30_000, true)] {
        let handle = client.open("/upload/a", WRITE | CREAT).await.handle();
        let mut fields = string(&handle);
        Attrs { size: Some(size), ..Attrs::default() }.encode(&mut fields);
        client.ask(10, &fields).await.ok();
        let answer = client.close(&handle).await;
        assert_eq!(matches!(answer, Got::Status(0, _)), complete, "{size}: {answer:?}");
    }
    let upload = gate.upload_at("/upload/a", UploadState::Committed).await;
    assert_eq!(gate.content(&upload).await, bytes(30_000));
}

#[tokio::test]
async fn two_sessions_on_one_path() {
    let gate = Gate::start().await;
    let mut first = gate.client().await;
    let mut second = gate.client().await;
    let handle = first.open("/upload/a", WRITE | CREAT | TRUNC).await.handle();
    first.write(&handle, 0, b"first").await.ok();
    assert!(
        second.open("/upload/a", WRITE | CREAT | TRUNC).await.refused(4).contains("being uploaded already")
    );
    first.close(&handle).await.ok();
    second.put("/upload/a", b"second").await.ok();
    let accepted: Vec<_> = gate.uploads().await.into_iter().filter(|u| u.state.is_accepted()).collect();
    assert_eq!(accepted.len(), 2);
}

#[tokio::test]
async fn a_handle_whose_connection_is_gone_is_taken_over_and_cut_off() {
    let gate = Gate::start().await;
    let mut first = gate.client().await;
    let handle = first.open("/upload/a", WRITE | CREAT | TRUNC).await.handle();
    first.write(&handle, 0, &bytes(1000)).await.ok();
    // The connection is known to be gone before its clean-up is done.
    let upload = gate.upload_at("/upload/a", UploadState::Receiving).await;
    gate.ingest.live.get(upload.upload_id).unwrap().mark_gone();
    let mut second = gate.client().await;
    let taken = second.open("/upload/a", WRITE | CREAT | TRUNC).await.handle();
    first.write(&handle, 1000, b"late").await.refused(4);
    first.close(&handle).await.refused(4);
    second.write(&taken, 0, b"taken over").await.ok();
    second.close(&taken).await.ok();
    let upload = gate.upload_at("/upload/a", UploadState::Committed).await;
    assert_eq!(gate.content(&upload).await, b"taken over");
}

#[tokio::test]
async fn a_held_file_survives_a_reopen_without_writes_and_can_be_continued_or_replaced() {
    for size in SIZES {
        let gate = Gate::start().await;
        let content = bytes(size);
        let mut client = gate.client().await;
        client.put("/upload/x.filepart", &content).await.ok();
        let handle = client.open("/upload/x.filepart", WRITE | CREAT).await.handle();
        client.close(&handle).await.ok();
        client.rename("/upload/x.filepart", "/upload/x").await.ok();
        assert_eq!(gate.content(&gate.upload_at("/upload/x", UploadState::Committed).await).await, content);

        client.put("/upload/y.filepart", &content).await.ok();
        let handle = client.open("/upload/y.filepart", WRITE | CREAT).await.handle();
        client.write(&handle, 0, b"replaced").await.ok();
        client.close(&handle).await.ok();
        client.rename("/upload/y.filepart", "/upload/y").await.ok();
        assert_eq!(
            gate.content(&gate.upload_at("/upload/y", UploadState::Committed).await).await,
            b"replaced"
        );
    }
}

#[tokio::test]
async fn what_the_last_run_was_receiving_is_interrupted_at_start() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    let handle = client.open("/upload/a", WRITE | CREAT | TRUNC).await.handle();
    client.write(&handle, 0, b"lost").await.ok();
    let upload = gate.upload_at("/upload/a", UploadState::Receiving).await;
    // The process dies: nobody says good-bye.
    let owner = upload.owner.unwrap();
    dropgate_gateway::ingest::recover(gate.backends.state.as_ref(), owner, "test/gateway").await.unwrap();
    gate.upload_at("/upload/a", UploadState::Aborted).await;
    // The old handle, were it still alive, can't commit.
    client.close(&handle).await.refused(4);
    assert!(!gate.uploads().await.iter().any(|u| u.state.is_accepted()));
}

#[tokio::test]
async fn cut_anywhere_nothing_commits_without_close() {
    let gate = Gate::start().await;
    let content = bytes(100);
    // The first handle of every session has the same name.
    let mut client = gate.client().await;
    let handle = client.open("/upload/probe", WRITE | CREAT | TRUNC).await.handle();
    client.disconnect().await;
    let request =
        |kind: u8, id: u32, fields: &[u8]| string(&[&[kind][..], &id.to_be_bytes(), fields].concat());
    let open = |path: &str| {
        let flags = (WRITE | CREAT | TRUNC).to_be_bytes();
        request(3, 6, &[&string(path.as_bytes())[..], &flags, &[0; 4]].concat())
    };
    let write = |id: u32, at: u64, data: &[u8]| {
        request(6, id, &[string(&handle), at.to_be_bytes().to_vec(), string(data)].concat())
    };
    let rest = [
        write(7, 0, &content[..50]),
        write(8, 50, &content[50..]),
        // Without its last byte it is none.
        request(4, 9, &string(&handle)),
    ]
    .concat();
    // Every byte is a place to cut, and with that every boundary of a packet and of a field.
    let length = open("/upload/cut000").len() + rest.len();
    for cut in 0..=length {
        let mut client = gate.client().await;
        let path = format!("/upload/cut{cut:03}");
        let opening = open(&path);
        let (first, second) = ([&opening[..], &rest].concat(), opening.len());
        assert_eq!(first.len(), length);
        client.feed(&first[..cut.min(second)]).await.unwrap();
        if cut >= second {
            // A client that waits for its handle; the WRITEs would be refused before.
            assert_eq!(client.reply(6).await.handle(), handle);
            client.feed(&first[second..cut]).await.unwrap();
        }
        client.disconnect().await;
        let accepted = gate.states().await.into_iter().filter(|(_, _, state)| state.is_accepted());
        assert_eq!(accepted.count(), usize::from(cut == length), "cut at {cut} of {length}");
    }
    let accepted = gate.upload_at(&format!("/upload/cut{length:03}"), UploadState::Committed).await;
    assert_eq!(gate.content(&accepted).await, content);
}
