//! What breaks the protocol, and what only bends it.

use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::{
    harness::{Gate, Setup},
    raw::{Attrs, Body, Request, frame, reply},
};

const W_C_T: u32 = frame::WRITE | frame::CREAT | frame::TRUNC;

#[tokio::test]
async fn bytes_of_an_oversized_write_never_run_as_requests() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (connection, mut raw) = gate.raw("acme").await?;
    // A WRITE of 1 MiB whose payload is made of well-formed MKDIR requests.
    let handle = raw.open("/upload/carrier", W_C_T, Attrs::none()).await?;
    let mkdir = Request::Mkdir { path: b"/upload/smuggled" }.encode(77);
    let payload: Vec<u8> = mkdir.iter().copied().cycle().take(1 << 20).collect();
    raw.bytes(Request::Write { handle: &handle, offset: 0, data: &payload }.encode(5)).await.ok();
    let last = raw.closed_by_server().await?;
    ensure!(last.iter().all(|r| r.id != 77), "a request out of the payload was answered: {last:?}");
    // Only this channel is gone, and nothing was made.
    let mut fresh = connection.sftp().await?;
    fresh.init(3).await?;
    ensure!(!fresh.names("/upload").await?.contains(&"smuggled".to_owned()));
    let row = gate.upload("acme", "/upload/carrier").await?;
    ensure!(!row.is_accepted(), "{row:?}");
    gate.finish().await
}

#[tokio::test]
async fn a_malformed_packet_closes_the_channel() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let mut bad: Vec<(&str, Vec<u8>)> = vec![
        ("length 0", vec![0, 0, 0, 0, 16]),
        ("a frame of 2 GiB", vec![0x7f, 0xff, 0xff, 0xff, 16]),
        ("no room for an id", frame::frame(&[16, 0, 0])),
        ("a string longer than its frame", frame::frame(&[16, 0, 0, 0, 9, 0, 0, 1, 0, b'x'])),
        ("attributes cut off", frame::frame(&[9, 0, 0, 0, 9, 0, 0, 0, 1, b'/', 0, 0, 0, 15, 0])),
        ("INIT again", Request::Init { version: 3 }.encode(0)),
    ];
    let mut with_tail = Request::Realpath { path: b"/" }.encode(9);
    with_tail[3] += 3;
    with_tail.extend_from_slice(b"abc");
    bad.push(("bytes behind the fields", with_tail));
    for (what, bytes) in bad {
        let (_connection, mut raw) = gate.raw("acme").await?;
        let tolerated = what == "bytes behind the fields";
        raw.bytes(bytes).await?;
        if tolerated {
            // Either is sound: refuse the frame, or ignore the tail within it. The next request must be read right.
            let Ok(id) = raw.send(Request::Realpath { path: b"/upload/.." }).await else { continue };
            match raw.reply_to(id).await {
                Ok(answer) => ensure!(answer.names()?[0].name == b"/", "{what}: {answer:?}"),
                Err(_) => continue,
            }
        } else {
            let last = raw.closed_by_server().await.context(what)?;
            ensure!(
                last.iter().all(|r| matches!(r.body, Body::Status(code, _) if code != reply::OK)),
                "{what} was answered: {last:?}"
            );
        }
    }
    gate.finish().await
}

#[tokio::test]
async fn init_comes_first_once_and_is_answered_with_3() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (connection, _raw) = gate.raw("acme").await?;
    let mut six = connection.sftp().await?;
    assert_eq!(six.init(6).await?.0, 3);
    six.put("/upload/by-6", b"lftp asks for 6").await?;
    let mut none = connection.sftp().await?;
    none.send(Request::Realpath { path: b"." }).await?;
    let last = none.closed_by_server().await?;
    ensure!(last.is_empty() || last.iter().all(|r| r.ok().is_err()), "{last:?}");
    gate.settled().await?;
    gate.finish().await
}

#[tokio::test]
async fn unknown_requests_are_unsupported_with_their_own_id() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    for kind in [0_u8, 2, 21, 99, 101, 105, 201, 255] {
        let id = raw.send(Request::Other { kind, data: b"whatever" }).await?;
        let answer = raw.next().await?;
        ensure!(answer.id == id, "request type {kind}: id {} for {id}", answer.id);
        answer.refused(reply::OP_UNSUPPORTED)?;
    }
    raw.call(Request::Realpath { path: b"." }).await?.names()?;
    gate.finish().await
}

#[tokio::test]
async fn handles_are_of_one_session_and_one_kind() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (connection, mut raw) = gate.raw("acme").await?;
    let mut other = connection.sftp().await?;
    other.init(3).await?;
    let file = raw.open("/upload/mine", W_C_T, Attrs::none()).await?;
    let dir = raw.call(Request::Opendir { path: b"/upload" }).await?.handle()?;

    for handle in [b"".as_slice(), b"no such handle", &[0xff; 256], &[0; 8]] {
        raw.call(Request::Write { handle, offset: 0, data: b"x" }).await?.refused(reply::FAILURE)?;
        raw.call(Request::Close { handle }).await?.refused(reply::FAILURE)?;
        raw.call(Request::Readdir { handle }).await?.refused(reply::FAILURE)?;
        raw.call(Request::Fstat { handle }).await?.refused(reply::FAILURE)?;
    }
    raw.call(Request::Write { handle: &dir, offset: 0, data: b"x" }).await?.refused(reply::FAILURE)?;
    raw.call(Request::Readdir { handle: &file }).await?.refused(reply::FAILURE)?;
    // Another session's handle means nothing here, also when the bytes are the same.
    let foreign = other.call(Request::Write { handle: &file, offset: 0, data: b"intruder" }).await?;
    ensure!(foreign.ok().is_err(), "{foreign:?}");

    raw.call(Request::Write { handle: &file, offset: 0, data: b"own" }).await?.ok()?;
    raw.call(Request::Close { handle: &file }).await?.ok()?;
    raw.call(Request::Close { handle: &file }).await?.refused(reply::FAILURE)?;
    raw.call(Request::Write { handle: &file, offset: 3, data: b"late" }).await?.refused(reply::FAILURE)?;
    let row = gate.upload_in("acme", "/upload/mine", "processed").await?;
    ensure!(row.size == Some(3), "{row:?}");
    gate.finish().await
}

#[tokio::test]
async fn replies_of_one_handle_come_in_order_and_a_slow_one_holds_up_nobody_else() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    let one = raw.open("/upload/one", W_C_T, Attrs::none()).await?;
    let two = raw.open("/upload/two", W_C_T, Attrs::none()).await?;
    let mut of_one = Vec::new();
    let mut of_two = Vec::new();
    for number in 0..200_u64 {
        of_one
            .push(raw.send(Request::Write { handle: &one, offset: number * 1000, data: &[1; 1000] }).await?);
        of_two
            .push(raw.send(Request::Write { handle: &two, offset: number * 1000, data: &[2; 1000] }).await?);
    }
    of_one.push(raw.send(Request::Close { handle: &one }).await?);
    of_two.push(raw.send(Request::Close { handle: &two }).await?);
    let mut seen = Vec::new();
    for _ in 0..of_one.len() + of_two.len() {
        let answer = raw.next().await?;
        answer.ok()?;
        seen.push(answer.id);
    }
    let order = |ids: &[u32]| seen.iter().copied().filter(|id| ids.contains(id)).collect::<Vec<_>>();
    assert_eq!(order(&of_one), of_one);
    assert_eq!(order(&of_two), of_two);
    gate.settled().await?;
    gate.finish().await
}

#[tokio::test]
async fn frames_may_be_cut_anywhere() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    let handle = raw.open("/upload/drip", W_C_T, Attrs::none()).await?;
    let data: Vec<u8> = (0..=255).cycle().take(3000).collect();
    let mut bytes = Vec::new();
    for (number, chunk) in data.chunks(1000).enumerate() {
        let write = Request::Write { handle: &handle, offset: number as u64 * 1000, data: chunk };
        bytes.extend(write.encode(1000 + u32::try_from(number)?));
    }
    bytes.extend(Request::Close { handle: &handle }.encode(2000));
    for piece in bytes.chunks(7) {
        raw.bytes(piece.to_vec()).await?;
    }
    raw.all_ok(&[1000, 1001, 1002, 2000]).await?;
    gate.upload_in("acme", "/upload/drip", "processed").await?;
    assert_eq!(std::fs::read(gate.delivered("acme").join("drip"))?, data);
    gate.finish().await
}

#[tokio::test]
async fn an_empty_piece_of_channel_data_means_nothing() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    for _ in 0..3 {
        raw.bytes(Vec::new()).await?;
        raw.call(Request::Realpath { path: b"." }).await?.names()?;
    }
    // An empty WRITE is a request like any other.
    let handle = raw.open("/upload/empty-write", W_C_T, Attrs::none()).await?;
    raw.call(Request::Write { handle: &handle, offset: 0, data: b"" }).await?.ok()?;
    raw.call(Request::Close { handle: &handle }).await?.ok()?;
    let row = gate.upload_in("acme", "/upload/empty-write", "processed").await?;
    ensure!(row.size == Some(0), "{row:?}");
    gate.finish().await
}
